"""``bentoml serve`` as a user starts it: real processes, a real socket."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cifar10.environment import PROJECT_ROOT
from tests.service.cases import CASES, JPEG, PNG, assert_refused

START_SECONDS = 60


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A running ``bentoml serve``."""

    def __init__(self, home: Path, store: Path, **settings: str) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / "log"
        environment = {
            **os.environ,
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "CIFAR10_MODELS": str(store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_DEVICE": "cpu",
            **settings,
        }
        command = [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=PROJECT_ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail(f"not ready after {START_SECONDS} s:\n{self.log.read_text()}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("serve"), tiny_store, CIFAR10_WORKERS="2")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def test_it_answers_refuses_counts_and_ends(server: Server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answer = client.post("/classify", files={"image": ("a.jpg", JPEG)})
        assert answer.status_code == 200
        assert client.post("/classify", content=JPEG).json() == answer.json()

        for case in CASES:
            assert_refused(case, client.request(**case.send_arguments()))
            assert client.post("/classify", content=PNG).status_code == 200

        # New connections reach both workers; whichever is asked, the sum is whole.
        for _ in range(20):
            assert httpx.post(f"{server.url}/classify", content=PNG).status_code == 200
        counted = re.compile(r'^cifar10_requests_total\{code="200",route="/classify"\} (.*)$', re.M)
        for _ in range(4):
            match = counted.search(httpx.get(f"{server.url}/metrics").text)
            assert match
            assert float(match[1]) == 2 + len(CASES) + 20

        assert client.get("/healthz").status_code == 200  # BentoML's own

    assert "Traceback" not in server.log.read_text()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


def test_a_store_that_cannot_be_served_ends_the_program_with_one_line(tmp_path: Path):
    server = Server(tmp_path, tmp_path / "nothing")
    try:
        assert server.process.wait(START_SECONDS) != 0
    finally:
        server.kill()
    text = server.log.read_text()
    assert "no model in" in text
    assert "Traceback" not in text
