"""Tests of the wheel: built, installed into an empty environment, used from any folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import add_model, linear_onnx

ROOT = Path(__file__).parent.parent
PACKAGES = ("bench", "cifar10", "export", "models", "service", "training")


@dataclass(frozen=True)
class Installed:
    wheel: Path
    bin: Path
    folder: Path
    """Any folder: it has a photo and nothing of the project."""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / "cifar10", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
        )

    def environment(self, **more: str) -> dict[str, str]:
        ours = ("PYTHONPATH", "CIFAR10_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "BENTOML_HOME": str(self.folder / "bentoml"), **more}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from a copy, so that nothing is left in the checkout. The environment borrows this
    one's packages, so that nothing is downloaded; not its editable install of the project."""
    tmp = tmp_path_factory.mktemp("wheel")
    copy = tmp / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.keras")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(tmp), str(copy)]
    subprocess.run(build, check=True, cwd=tmp)
    (wheel,) = tmp.glob("*.whl")
    environment = tmp / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [*pip, "--python", str(python), "install", *offline, str(wheel)], check=True, cwd=tmp
    )
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp / "anywhere"
    folder.mkdir()
    rows = np.linspace(0, 255, 300)[:, None, None]
    picture = np.broadcast_to(rows, (300, 400, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "photo.jpg")
    return Installed(wheel, environment / "bin", folder)


def test_the_wheel_has_the_released_models_and_all_data(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    models = {name.split("/")[2] for name in names if name.startswith("cifar10/models/")}
    assert models == {"compact", "compact_int8", "photo_int8"}
    static = {f"service/static/{path.name}" for path in (ROOT / "service/static").iterdir()}
    assert static <= names
    modules = {
        str(path.relative_to(ROOT))
        for package in ("cifar10", "training", "export", "service", "bench")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= names


def test_predict_from_any_folder(installed: Installed) -> None:
    done = installed.run("predict", "photo.jpg", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "auto"
    assert found["images"][0]["model"] == "photo_int8"
    assert found["images"][0]["label"]
    assert [path.name for path in installed.folder.iterdir()] == ["photo.jpg"]


def test_a_named_store_comes_first(installed: Installed, tmp_path: Path) -> None:
    add_model(tmp_path, "mine", linear_onnx(0))
    named = installed.run("predict", "photo.jpg", "--json", CIFAR10_MODELS=str(tmp_path))
    assert json.loads(named.stdout)["model"] == "mine"


def test_a_store_beside_it_comes_first(installed: Installed) -> None:
    beside = installed.folder / "models"
    try:
        add_model(beside, "mine", linear_onnx(0))
        assert json.loads(installed.run("predict", "photo.jpg", "--json").stdout)["model"] == "mine"
    finally:
        shutil.rmtree(beside)


def test_the_installed_commands_are_found(installed: Installed) -> None:
    done = installed.run("--help")
    assert done.returncode == 0, done.stderr
    assert {"predict", "serve", "bench", "train"} <= set(done.stdout.split())
    assert installed.run("--version").stdout.startswith("cifar10 0.")
    assert installed.run("doctor").returncode == 0


def test_a_missing_extra_names_its_pip_install(installed: Installed, tmp_path: Path) -> None:
    """Hides Keras, as in an environment that only serves."""
    (tmp_path / "keras.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')\n"
    )
    done = installed.run(
        "train", "simple_cnn", "--smoke", "--data", "synthetic", PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 1
    assert "pip install 'cifar10-efficiency[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_from_any_folder(installed: Installed) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    log = installed.folder.parent / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [installed.bin / "cifar10", "serve", "--port", str(port)],
            cwd=installed.folder,
            env=installed.environment(CIFAR10_WORKERS="1"),
            stdout=output,
            stderr=output,
        )
    try:
        limit = time.monotonic() + 180
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            try:
                if urllib.request.urlopen(f"http://localhost:{port}/readyz", timeout=5).status:
                    break
            except OSError:
                time.sleep(0.2)
        photo = (installed.folder / "photo.jpg").read_bytes()
        answer = json.load(urllib.request.urlopen(f"http://localhost:{port}/classify", photo))
        assert answer["model"] == "photo_int8"
        busy = installed.run("serve", "--port", str(port))
        assert busy.returncode == 1
        assert busy.stderr.startswith(f"error: port {port} is in use; ")
        assert busy.stderr.count("\n") == 1
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    lines = log.read_text().splitlines()
    assert lines
    assert all(json.loads(line)["message"] for line in lines)
