"""Tests of a server's isolation from other users and the internet: control sockets, metrics and
usage reports."""

import fcntl
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from cifar10.environment import PROJECT_ROOT
from service.workers import private_folder as private_folder_module
from service.workers.private_folder import private_folder, remove_leftovers
from tests.service.cases import PNG
from tests.service.server import (
    START_SECONDS,
    Server,
    folder_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc, /dev/shm")

is_root = sys.platform == "linux" and os.geteuid() == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path):
    running = Server(tmp_path_factory.mktemp("isolated"), tiny_store)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def test_no_control_port_is_open(server: Server):
    processes = [psutil.Process(server.process.pid)]
    processes += processes[0].children(recursive=True)
    listening = {
        one.laddr.port
        for process in processes
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert listening == {int(server.url.rpartition(":")[2])}


def test_only_its_owner_can_use_the_control_socket(server: Server):
    folder = folder_of(server)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "control"))  # its owner can


def test_the_metrics_are_in_the_private_folder(server: Server):
    files = {path.name.partition("_")[0] for path in (folder_of(server) / "metrics").glob("*.db")}
    assert files == {"counter", "gauge", "histogram"}


@pytest.mark.skipif(not is_root, reason="only root can act as another user")
def test_another_user_cannot_reach_the_control_socket(server: Server):
    address = str(folder_of(server) / "control")
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({address!r})"
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", program],
        user="nobody",
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "PermissionError" in done.stderr


def images_classified(server: Server) -> str:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next((line for line in lines if line.startswith("cifar10_images_classified_total")), "")


def test_a_second_server_leaves_the_first_one_s_metrics_alone(server: Server, tiny_store: Path):
    """Also if the second one cannot start because its port is taken."""
    for _ in range(3):
        assert httpx.post(f"{server.url}/classify", content=PNG).status_code == 200
    before = images_classified(server)
    assert before
    port = server.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", port],
        cwd=PROJECT_ROOT,
        env={
            **os.environ,
            "BENTOML_HOME": str(server.log.parent / "bentoml"),
            "CIFAR10_MODELS": str(tiny_store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_DEVICE": "cpu",
        },
        capture_output=True,
        timeout=2 * START_SECONDS,
    )
    assert second.returncode != 0
    assert images_classified(server) == before


def test_only_folders_of_killed_servers_are_removed(tmp_path: Path):
    dead, alive, foreign = (tmp_path / f"cifar10-{name}" for name in ("dead", "alive", "foreign"))
    for folder in (dead, alive, foreign):
        folder.mkdir()
    for folder in (dead, alive):
        (folder / "lock").touch()
    with (alive / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
    assert [folder.exists() for folder in (dead, alive, foreign)] == [False, True, True]


def test_without_shared_memory_the_folder_is_in_the_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(private_folder_module, "SHARED_MEMORY", tmp_path / "nothing")
    monkeypatch.setattr(private_folder_module.tempfile, "gettempdir", lambda: str(tmp_path))
    private_folder.cache_clear()
    try:
        folder = private_folder()
        assert folder.parent == tmp_path
        assert private_folder() == folder
    finally:
        private_folder.cache_clear()


def can_unshare() -> bool:
    unshare = shutil.which("unshare")
    command = [unshare or "false", "--net", "--mount", "true"]
    return is_root and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs namespaces, which only root may make here")
def test_serving_makes_no_name_lookups_and_leaves_no_files(tmp_path: Path, tiny_store: Path):
    """Uses a separate network with a name server that records its queries."""
    command = [
        "unshare",
        "--net",
        "--mount",
        sys.executable,
        "-m",
        "tests.service.workers.network_namespace",
    ]
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=PROJECT_ROOT,
        env={
            **os.environ,
            "CIFAR10_MODELS": str(tiny_store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_DEVICE": "cpu",
            "CIFAR10_WORKERS": "1",
        },
        capture_output=True,
        text=True,
        timeout=4 * START_SECONDS,
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert json.loads(done.stdout) == {"looked_up": [], "left": []}


@pytest.mark.parametrize(
    "module", ["cifar10.predictor", "service.app", "bench.measure.probe", "export.quantize"]
)
def test_onnx_runtime_s_telemetry_is_off_before_its_import(module: str):
    if module.startswith("export"):
        pytest.importorskip("onnx", reason="the extra `train`")
    program = f"""
import importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("ORT_DISABLE_TELEMETRY =", os.environ.get("ORT_DISABLE_TELEMETRY"))
        return None

sys.meta_path.insert(0, Watch())
import {module}
"""
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "ORT_DISABLE_TELEMETRY = 1"
