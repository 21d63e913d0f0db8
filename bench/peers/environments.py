"""Each peer's own virtual environment, made once from its pinned ``requirements.txt``.

They are kept under ``CIFAR10_CACHE``/peers, outside the project, and made again when the pins or
the Python change. ``uv`` makes them (the ``peers`` extra), or else venv and pip.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.peers.catalogue import FOLDER
from cifar10.environment import cache_dir
from cifar10.errors import BenchError

STAMP: Final = "cifar10-peer.stamp"
_SHOWN_LINES: Final = 5
_ADDRESS: Final = re.compile(r"\w+://[^\s`'\"]+")
"""Addresses of package indexes are removed from reasons: these become published rows."""

Run = Callable[[Sequence[str]], None]


class PeerUnavailableError(BenchError):
    """A peer cannot be installed here."""


def programs_of(folder: str, *, root: Path | None = None, run: Run | None = None) -> Path:
    """Make a peer's environment where it is missing; the folder of its programs.

    Args:
        folder: of the peer, under ``bench/peers``.
        root: of the environments (default: under the cache).
        run: runs one command: tests give a fake.

    Raises:
        PeerUnavailableError: it cannot be made; with the installer's last lines.
    """
    requirements = FOLDER / folder / "requirements.txt"
    place = (root or cache_dir() / "peers").resolve() / folder
    wanted = _digest(requirements)
    stamp = place / STAMP
    programs = place / "bin"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return programs
    shutil.rmtree(place, ignore_errors=True)
    for command in _commands(place, requirements):
        (run or _run)(command)
    stamp.write_text(wanted, encoding="utf-8")
    return programs


def version_of(folder: str, package: str) -> str:
    """The version that a peer's requirements pin a package to.

    Raises:
        PeerUnavailableError: they do not.
    """
    for line in (FOLDER / folder / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, found, version = line.strip().partition("==")
        if found and name.lower() == package:
            return version
    message = f"bench/peers/{folder}/requirements.txt does not pin {package}"
    raise PeerUnavailableError(message)


def _digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()


def _commands(place: Path, requirements: Path) -> list[list[str]]:
    python = str(place / "bin" / "python")
    pins = ["-r", str(requirements)]
    if importlib.util.find_spec("uv") is not None:
        uv = [sys.executable, "-m", "uv"]
        return [
            [*uv, "venv", "--quiet", "--python", sys.executable, str(place)],
            [*uv, "pip", "install", "--quiet", "--python", python, *pins],
        ]
    return [
        [sys.executable, "-m", "venv", str(place)],
        [python, "-m", "pip", "install", "--quiet", *pins],
    ]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-_SHOWN_LINES:]
        reason = _ADDRESS.sub("(address)", " | ".join(words or ["no reason given"]))
        message = f"its environment cannot be made: {reason}"
        raise PeerUnavailableError(message)
