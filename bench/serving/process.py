"""Service in a child process: start it, wait for readiness, measure it and stop it.

The service finds the models through ``CIFAR10_MODELS``. It has its own BentoML home, because a
second server in the same home deletes the metrics of the first.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import psutil  # type: ignore[import-untyped]

from cifar10.environment import PROJECT_ROOT, engine
from cifar10.errors import BenchError

START_TIMEOUT_SECONDS: Final = 180.0
STOP_TIMEOUT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.02
_SHOWN_LINES: Final = 15

SERVE: Final = (sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")


class Server:
    """A service for one measurement; a context manager that starts and stops it.

    Args:
        load: names of the models to load; empty for all.
        command: command that starts it; ``{port}``, ``{port_2}`` and ``{port_3}`` are replaced by
            free ports.
        settings: additional environment variables, with the same placeholders. ``CIFAR10_WORKERS``
            defaults to 1, so that the rows of all machines are about one worker.
        ready: returns whether the service at a URL is ready.
        start_timeout_seconds: maximum time until it is ready.
        output: file descriptor for its output; None: a temporary file, whose last lines are in the
            error if the service does not start.

    Raises:
        BenchError: on entering, if it does not become ready; includes its last lines of output.
    """

    def __init__(
        self,
        models: Path,
        *,
        load: Sequence[str] = (),
        device: str = "auto",
        command: Sequence[str] = SERVE,
        settings: Mapping[str, str] | None = None,
        folder: Path = PROJECT_ROOT,
        ready: Callable[[str], bool] | None = None,
        start_timeout_seconds: float = START_TIMEOUT_SECONDS,
        output: int | None = None,
    ) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ports = {"{port}": self.port, "{port_2}": _free_port(), "{port_3}": _free_port()}

        def with_ports(text: str) -> str:
            for name, port in ports.items():
                text = text.replace(name, str(port))
            return text

        self._command = [with_ports(part) for part in command]
        self._settings = {
            "CIFAR10_MODELS": str(models.resolve()),
            "CIFAR10_DEVICE": device,
            "CIFAR10_WORKERS": "1",
        }
        self._folder = folder
        self._ready = ready or is_ready
        self.ready_seconds = 0.0
        """Time from start to readiness; valid once entered."""
        if load:
            self._settings |= {"CIFAR10_LOAD": ",".join(load), "CIFAR10_DEFAULT_MODEL": load[0]}
        self._settings |= {name: with_ports(value) for name, value in (settings or {}).items()}
        self._start_timeout_seconds = start_timeout_seconds
        self._output = output
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes]
        self._log: Path

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-server-")))
            self._log = home / "output.txt"
            output = stack.enter_context(self._log.open("wb"))
            started = time.monotonic()
            bento_home = {"BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                cwd=self._folder,
                env=os.environ | bento_home | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=output if self._output is None else self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(self._stop)
            self._wait_until_ready()
            self.ready_seconds = time.monotonic() - started
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check_alive(self) -> None:
        """Raise an error if the process has ended.

        Raises:
            BenchError: it has ended; includes its exit code and last lines of output.
        """
        code = self._process.poll()
        if code is not None:
            message = f"the server stopped by itself (exit code {code})\n{self._last_words()}"
            raise BenchError(message)

    def cpu_seconds(self) -> float:
        """Return the user and system time used so far by the server and its live children."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def processes(self) -> list[psutil.Process]:
        """Return the started program and all its live descendants; none once it has ended."""
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Return the processes without children, which handle the requests."""
        return [one for one in self.processes()[1:] if not one.children()]

    def memory_bytes(self) -> int:
        """Return the memory of all its processes together.

        Shared pages count once (proportional set size) where the kernel reports that; otherwise the
        resident set sizes are added.
        """
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", 0) or memory.rss
        return total

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_seconds
        while not self._ready(self.url):
            self.check_alive()
            if time.monotonic() > deadline:
                message = (
                    f"the server was not ready within {self._start_timeout_seconds:g} s\n"
                    f"{self._last_words()}"
                )
                raise BenchError(message)
            time.sleep(_POLL_SECONDS)

    def _stop(self) -> None:
        """Terminate the service, then kill its process group, so that no worker survives its
        parent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(f"  | {line}" for line in lines[-_SHOWN_LINES:])
        return f"Its last output:\n{shown}" if shown else "It printed nothing."


def device_named(device: str) -> str:
    """Return the device of a row about a server started here, which has the engine of this
    environment."""
    return "openvino" if engine() == "openvino" else device


def is_ready(url: str) -> bool:
    """Return whether ``GET url/readyz`` answers 200."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
