"""Tests that run the snippets of README and docs with a real server and real files."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import numpy as np
import pytest
from PIL import Image

from cifar10.commands.command import LazyGroup
from cifar10.commands.main import root_group
from tests.processes import end_group

OURS = "cifar10 "
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
"""The pages whose commands and programs are run."""
IN_ORDER = "docs/own-images.md"
"""The page whose commands build on each other. They are only parsed here."""
RUN_ALONE = [text for name, text in PAGES.items() if name != IN_ORDER]
COMMANDS = list(
    dict.fromkeys(
        line
        for page in RUN_ALONE
        for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    )
)

SEQUENCE = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGES[IN_ORDER], re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]

PROGRAMS = list(
    dict.fromkeys(
        program
        for page in RUN_ALONE
        for program in re.findall(r"^```(python|js)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    )
)
"""Each a whole program: (language, text)."""

LONG = re.compile(r"(CIFAR10_DATA=\S+ )?make (test|lint|check|report|smoke|reproduce)")
"""Minutes each, and `make test` is this very run: make is asked what it would do."""


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path


def environment(tmp: Path) -> dict[str, str]:
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "BENTOML_HOME": str(tmp / "bentoml")}


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run ``make serve`` in this environment on a free port."""
    tmp = tmp_path_factory.mktemp("readme")
    rows = np.linspace(0, 255, 300)[:, None, None]
    picture = Image.fromarray(np.broadcast_to(rows, (300, 400, 3)).astype(np.uint8))
    for name in ("photo", "cat", "ship", "frog"):
        picture.save(tmp / f"{name}.jpg")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    for stamp in ("serve.stamp", "all.stamp"):  # this environment has what they stand for
        (Path(sys.prefix) / stamp).touch()
    command = ["make", "serve", f"PORT={port}", f"VENV={sys.prefix}"]
    with (tmp / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(tmp), stdout=log, stderr=log, start_new_session=True
        )
    try:
        limit = time.monotonic() + 120
        while not ready(port):
            assert process.poll() is None, (tmp / "log").read_text()
            assert time.monotonic() < limit, (tmp / "log").read_text()
            time.sleep(0.2)
        yield Server(port, tmp)
    finally:
        end_group(process, grace=30)


def parse(arguments: list[str]) -> None:
    """Parse the arguments as ``cifar10`` would, without running anything.

    Raises:
        click.UsageError: they are wrong.
    """
    command: click.Command = root_group()
    while isinstance(command, LazyGroup):
        name, command, arguments = command.resolve_command(click.Context(command), arguments)
        assert command is not None, name
    command.make_context(command.name, list(arguments))


def test_the_readme_has_the_commands_it_promises():
    assert "make serve" in COMMANDS
    assert "make test" in COMMANDS
    assert any(command.startswith("curl -F image=@") for command in COMMANDS)
    assert len(PROGRAMS) == 3
    text = "".join(program for _, program in PROGRAMS)
    assert all(client in text for client in ("import httpx", "import tritonclient", "fetch("))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("curl")])
def test_curl_examples_of_the_docs_work(server, command):
    command = command.replace("localhost:3000", f"localhost:{server.port}")
    done = subprocess.run(
        ["bash", "-c", command.replace("curl", "curl -fsS", 1)],
        cwd=server.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r'"(label|models|card|status|predictions)":', done.stdout)


@pytest.mark.parametrize(("language", "program"), PROGRAMS)
def test_client_programs_of_the_docs_work(server, language, program):
    """Each program prints the class that curl gets."""
    interpreter = {"python": sys.executable, "js": shutil.which("node")}[language]
    if interpreter is None:
        pytest.skip("no node: the JavaScript client is run where node is installed")
    asked = re.search(r'infer\("(\w+)"', program)
    expected = httpx.post(
        f"http://localhost:{server.port}/classify",
        params={"model": asked[1]} if asked else {},
        content=(server.folder / "photo.jpg").read_bytes(),
    ).json()["label"]
    path = server.folder / {"python": "client.py", "js": "client.mjs"}[language]
    path.write_text(program.replace("localhost:3000", f"localhost:{server.port}"))
    done = subprocess.run(
        [interpreter, str(path)], cwd=server.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == expected


@pytest.mark.parametrize("command", [c for c in COMMANDS if LONG.fullmatch(c)])
def test_long_make_targets_use_existing_commands(command):
    done = subprocess.run(
        ["bash", "-c", f"{command} -n VENV={sys.prefix}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for arguments in re.findall(r"/cifar10 ([^;&|\n}]+)", done.stdout):
        parse(arguments.split())


def test_bentoml_build(tmp_path):
    """Uses a copy, because a build must neither depend on the checkout nor leave files in it."""
    copy = tmp_path / "checkout"
    names = (
        "bentofile.yaml", "pyproject.toml", "cifar10", "service", "models/compact",
        "models/compact_int8",
        "results/efficiency.json",
    )  # fmt: skip
    for name in names:
        source = ROOT / name
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    done = subprocess.run(
        ["bash", "-c", "bentoml build"],
        cwd=copy,
        env={**environment(tmp_path), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (bento,) = (path.parent for path in (tmp_path / "bentoml").rglob("bento.yaml"))
    kept = {str(path.relative_to(bento / "src")) for path in (bento / "src").rglob("*.*")}
    for name in ("compact", "compact_int8"):
        assert {f"models/{name}/card.json", f"models/{name}/model.onnx"} <= kept
    assert "results/efficiency.json" in kept
    static = {str(path.relative_to(ROOT)) for path in (ROOT / "service/static").iterdir()}
    assert static <= kept


@pytest.mark.parametrize("command", [c for c in [*COMMANDS, *SEQUENCE] if c.startswith(OURS)])
def test_documented_commands_parse(command):
    """Commands that only read are run; the arguments of the others are parsed."""
    arguments = command.removeprefix(OURS).split()
    if arguments[0] in ("ls", "show", "list"):
        done = subprocess.run(
            [sys.executable, "-m", "cifar10", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "compact" in done.stdout
    else:
        parse(arguments)


def test_every_command_is_covered():
    for command in COMMANDS:
        known = command.startswith(("curl", OURS)) or LONG.fullmatch(command)
        assert known or command in ("make serve", "bentoml build"), command


def test_the_tree_in_the_readme_matches_the_files():
    tree = README.partition("## The tree")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([a-z0-9_./]+)` \|", tree, re.MULTILINE)
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


def test_relative_links_lead_to_files():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_anchors_in_links_are_headings():
    """GitHub makes an anchor of a heading: lower case, hyphens for spaces, no punctuation."""
    anchors = {
        name: {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        for name, text in PAGES.items()
    }
    for page, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
            name = os.path.normpath(Path(page).parent / target) if target else page
            if name in anchors:
                assert anchor in anchors[name], f"{page}: {target}#{anchor}"
