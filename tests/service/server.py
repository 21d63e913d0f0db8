"""A real ``bentoml serve`` for tests, its processes and its connections."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from cifar10.environment import PROJECT_ROOT
from tests.processes import end_group

START_SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A running ``bentoml serve``, on ``host`` or, if that is None, on its default address.

    ``options`` are added to its command line and ``settings`` to its environment.
    """

    def __init__(
        self,
        home: Path,
        store: Path,
        *options: str,
        log_to: int | None = None,
        host: str | None = "127.0.0.1",
        **settings: str,
    ) -> None:
        port = free_port()
        scheme = "https" if "--ssl-certfile" in options else "http"
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.log = home / "log"
        environment = {
            **os.environ,
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "CIFAR10_MODELS": str(store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_DEVICE": "cpu",
            "CIFAR10_WORKERS": "1",
            "CIFAR10_GRPC_PORT": "0",
            **settings,
        }
        command = [sys.executable, "-m", "bentoml", "serve", *options]
        if host is not None:
            command += ["--host", host]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=PROJECT_ROOT,
                env=environment,
                stdout=log if log_to is None else log_to,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, verify: ssl.SSLContext | bool = True) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", verify=verify).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail(f"not ready after {START_SECONDS} s:\n{self.log.read_text()}")

    def kill(self) -> None:
        end_group(self.process)


def supervisor_of(server: Server) -> psutil.Process:
    return psutil.Process(server.process.pid).children()[0]


def workers_of(server: Server) -> set[int]:
    return {child.pid for child in supervisor_of(server).children()}


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def connections_of(server: Server) -> Counter[int]:
    return Counter(
        {
            pid: sum(
                one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port_of(server)
                for one in psutil.Process(pid).net_connections("tcp")
            )
            for pid in workers_of(server)
        }
    )


def refusals(server: Server, reason: str) -> float:
    """Return the number of refusals that the metrics report."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'^cifar10_rejected_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def read_all(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def folder_of(server: Server) -> Path:
    """Return the private folder, found through the lock file that BentoML's process holds open."""
    for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
        target = file.readlink()
        if target.name == "lock" and target.parent.name.startswith("cifar10-"):
            return target.parent
    pytest.fail("there is no private folder")
