"""Carry out a container file's instructions in folders, without a container engine.

The base image is replaced by a Debian that debootstrap made, which has the same Python.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PREPARE = """
set -e
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
{more}
exec chroot {user} {root} "$@"
"""
_READ_ONLY = """
mount -o remount,ro,bind {root}
mount -t tmpfs tmpfs {root}/tmp
mount -t tmpfs tmpfs {root}/dev/shm
"""


@dataclass
class Stage:
    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def words(self, *command: str, read_only: bool = False, mounts: str = "") -> list[str]:
        """The command that runs ``command`` in this image, in a mount namespace of its own."""
        root = shlex.quote(str(self.root))
        more = mounts + (_READ_ONLY if read_only else "")
        user = f"--userspec={self.user}" if read_only else ""
        script = _PREPARE.format(root=root, user=user, more=more.format(root=root))
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        inside = f'cd {self.folder} && exec "$@"'
        wrapped = ["env", "-i", *variables, "sh", "-c", inside, "sh", *command]
        return ["unshare", "--mount", "sh", "-c", script, "sh", *wrapped]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(word, rest) of each instruction, with continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line
    ]


def build(path: Path, context: Path, base: Path, folder: Path) -> dict[str, Stage]:
    """Build every stage below ``folder``; return them by name."""
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for word, rest in instructions(path):
        if word == "FROM":
            source, _, name = rest.split()
            before = stages.get(source) or _from_debian(base)
            stage = Stage(folder / name, **_copied(before))
            subprocess.run(["cp", "-a", str(before.root), str(stage.root)], check=True)
            stages[name] = stage
        elif word == "COPY":
            _copy(rest, stage, stages, context)
        elif word == "RUN":
            _run(stage, rest)
        elif word == "ENV":
            stage.variables |= {
                name: _expanded(value, stage.variables)
                for name, _, value in (pair.partition("=") for pair in shlex.split(rest))
            }
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
            words = json.loads(rest[rest.index("[") :])
            setattr(
                stage,
                {"ENTRYPOINT": "entry", "CMD": "command", "HEALTHCHECK": "health"}[word],
                words,
            )
    return stages


def _from_debian(base: Path) -> Stage:
    local = base / "usr/local/bin"
    for name, target in (("python", "/usr/bin/python3"), ("pip", "/usr/bin/pip3")):
        if not (local / name).is_symlink():
            (local / name).symlink_to(target)
    (base / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")  # as an engine does
    return Stage(base, {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})


def _copied(stage: Stage) -> dict[str, Any]:
    names = ("variables", "folder", "user", "entry", "command", "health")
    return {name: type(value)(value) for name in names for value in [getattr(stage, name)]}


def _expanded(value: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ""), value)


def _copy(rest: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    *sources, target = rest.split()
    source_root = context
    if sources[0].startswith("--from="):
        source_root = stages[sources.pop(0).removeprefix("--from=")].root
    into = stage.root / (Path(stage.folder) / target).relative_to("/")
    for source in sources:
        found = source_root / source.lstrip("/")
        place = into / found.name if target.endswith("/") else into
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(found, place)


def _run(stage: Stage, command: str) -> None:
    """Run in the stage with this machine's name server and package index."""
    named = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    files = ["/etc/resolv.conf", "/etc/pip.conf", "/etc/xdg/pip", *named.values()]
    mounts = ""
    for one in {file for file in files if file.startswith("/") and Path(file).exists()}:
        make = "mkdir -p" if Path(one).is_dir() else "install -D /dev/null"
        mounts += f"{make} {{root}}{one}\nmount --bind {one} {{root}}{one}\n"
    before = dict(stage.variables)
    stage.variables |= named
    words = stage.words("sh", "-ec", command, mounts=mounts)
    stage.variables = before
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
