"""The container file's stages, built in a debootstrapped Debian, and the service in the last one.

Takes some minutes and downloads a Debian, so it is run only by ``RUN_SLOW=1 pytest -m slow``.
``DEBIAN_ROOT`` names a Debian 12 made before (debootstrap --variant=minbase
--include=python3,python3-venv,python3-pip,ca-certificates).
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from bench.load.bodies import encode_png
from cifar10.environment import PROJECT_ROOT
from tests.deploy.image import Stage, build

PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("RUN_SLOW" not in os.environ, reason="takes minutes: set RUN_SLOW=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount and chroot"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("image")
    base = Path(os.environ.get("DEBIAN_ROOT", folder / "debian"))
    if not base.exists():
        if shutil.which("debootstrap") is None:
            pytest.skip("needs debootstrap")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
        subprocess.run([*command, str(base)], check=True)
    dockerfile = PROJECT_ROOT / "deploy/Dockerfile"
    text = dockerfile.read_text()
    cpu_only = folder / "Dockerfile"  # without the stages that download CUDA
    stages = text.split("\nFROM ")
    kept = [one for one in stages if " AS build-cuda" not in one and " AS cuda" not in one]
    cpu_only.write_text("\nFROM ".join(kept))
    yield build(cpu_only, PROJECT_ROOT, base, folder)["cpu"]
    shutil.rmtree(folder, ignore_errors=True)


def inside(image: Stage, *command: str) -> "subprocess.CompletedProcess[str]":
    words = image.words(*command, read_only=True)
    return subprocess.run(words, capture_output=True, text=True)


def test_the_image_has_neither_compiler_nor_pip(image: Stage):
    for tool in ("gcc", "cc", "make"):
        assert inside(image, "sh", "-c", f"command -v {tool}").returncode != 0
    assert not (image.root / "opt/cifar10/bin/pip").exists()
    assert not (image.root / "root/.cache").exists()
    found = inside(image, "python", "-c", "import onnxruntime; print(onnxruntime.__version__)")
    assert found.returncode == 0, found.stderr


def test_the_service_runs_unprivileged_on_a_read_only_root(image: Stage, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    assert image.user == "10001:10001"
    assert "Read-only" in inside(image, "touch", "/here").stderr
    words = image.words(*image.entry, *image.command, "--port", str(port), read_only=True)
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 180
        url = f"http://127.0.0.1:{port}"
        while not is_ready(url):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < limit, (tmp_path / "log").read_text()
            time.sleep(0.2)
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "Uid:\t10001\t10001\t10001\t10001" in status
        picture = encode_png(np.zeros((32, 32, 3), np.uint8))
        answer = httpx.post(f"{url}/classify", content=picture, timeout=30)
        assert answer.status_code == 200
        assert answer.json()["model"] == "compact_int8"
        page = httpx.get(f"{url}/", headers={"accept": "text/html"}, timeout=30)
        assert page.status_code == 200
        health = [word.replace(":3000", f":{port}") for word in image.health]
        assert inside(image, *health).returncode == 0
    finally:
        server.terminate()  # as a container engine does, to the first process only
        code = server.wait(60)
    assert code == 0


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
