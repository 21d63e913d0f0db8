"""Test that runs the page about a user's own images, command by command."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import end_group
from tests.test_readme import IN_ORDER, ROOT, environment, ready

PAGE = (ROOT / IN_ORDER).read_text()
(DRAW,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)).splitlines()

WEIGHTS = """\
import keras, sys
keras.utils.set_random_seed(0)
network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
network.save_weights(sys.argv[1])
"""
"""Random weights in the form of real ones, which would have to be downloaded."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "draw.py").write_text(DRAW)
    (tmp_path / "weights").mkdir()
    weights = tmp_path / "weights" / "mobilenetv2.weights.h5"
    for arguments in (["draw.py"], ["-c", WEIGHTS, str(weights)]):
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def shell(folder: Path) -> dict[str, str]:
    names = {"MODELS": "models", "RESULTS": "results", "CACHE": "cache", "WEIGHTS": "weights"}
    own = {f"CIFAR10_{name}": str(folder / place) for name, place in names.items()}
    return {**environment(folder), **own, "PYTHONPATH": str(ROOT)}


def serving(command: str, folder: Path, shell: dict[str, str]) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"{command} --port {port}"],
            cwd=folder, env=shell, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + 300
        while not ready(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < limit, (folder / "log").read_text()
            time.sleep(0.2)
        yield port
    finally:
        end_group(process, grace=30)


def test_the_page_s_commands_work_in_order(folder: Path, shell: dict[str, str]) -> None:
    assert [command.split()[1] for command in COMMANDS if command.startswith("cifar10")] == [
        "train", "export", "export", "predict", "serve", "bench",
    ]  # fmt: skip
    server = None
    port = 3000
    for command in COMMANDS:
        ours = command.replace("cifar10 ", f"{sys.executable} -m cifar10 ", 1)
        if command == "cifar10 serve":
            server = serving(ours, folder, shell)
            port = next(server)
            continue
        ours = ours.replace("localhost:3000", f"localhost:{port}").replace("curl", "curl -fsS")
        done = subprocess.run(
            ["bash", "-c", ours], cwd=folder, env=shell, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.startswith(("curl", "cifar10 predict")):
            assert re.search("circle|square|triangle", done.stdout)
    assert server is not None
    server.close()  # type: ignore[attr-defined]
