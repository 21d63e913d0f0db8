"""A replica: the service on a host of its own, and the faults that the drill injects."""

import contextlib
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import psutil  # type: ignore[import-untyped]

from bench.fleet.network import Host
from bench.serving.new_file import put_new_file
from bench.serving.process import Server, is_ready
from cifar10.errors import BenchError
from cifar10.store import ONNX_FILE

PORT: Final = 3000
_ADMINISTRATOR: Final = "fleet"
_END_SECONDS: Final = 60.0


class Replica:
    """One replica with its own copy of the model; a context manager that starts and stops it.

    Args:
        name: its name at the balancer.
        host: where it runs.
        models: model store to copy from.
        model: the model that it serves.
        folder: folder for its files.
        workers: number of worker processes.
    """

    def __init__(
        self, name: str, host: Host, models: Path, model: str, folder: Path, workers: int
    ) -> None:
        self.name, self.host, self.model = name, host, model
        self.url = f"http://{host.address}:{PORT}"
        self._store = folder / name
        shutil.copytree(models / model, self._store / model)
        self._onnx = (self._store / model / ONNX_FILE).read_bytes()
        self._settings = {
            "CIFAR10_WORKERS": str(workers),
            "CIFAR10_ADMIN_TOKEN": _ADMINISTRATOR,
        }
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._signal(self._processes(), signal.SIGCONT)
        self._clean()

    def start(self) -> None:
        """Start the service and wait until it is ready.

        Raises:
            BenchError: it does not become ready.
        """
        serve = (*(sys.executable, "-m", "bentoml", "serve"), "--host", self.host.address)
        server = Server(
            self._store,
            load=[self.model],
            device="cpu",
            command=self.host.inside(*serve, "--port", str(PORT)),
            settings=self._settings,
            ready=lambda _: is_ready(self.url),
        )
        self._server = server.__enter__()

    def terminate(self) -> None:
        """Send SIGTERM to the first process, as Kubernetes does, and wait until all have ended.

        Raises:
            BenchError: they do not end.
        """
        processes = self._processes()
        self._signal(processes[:1], signal.SIGTERM)
        _, left = psutil.wait_procs(processes, _END_SECONDS)
        if left:
            message = f"replica {self.name} did not end within {_END_SECONDS:g} s after SIGTERM"
            raise BenchError(message)
        self._clean()

    def kill(self) -> None:
        """Kill all processes of the replica."""
        self._signal(self._processes(), signal.SIGKILL)
        self._clean()

    def freeze(self) -> None:
        """Stop all processes of the replica; their connections stay open."""
        self._signal(self._processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the stopped processes."""
        self._signal(self._processes(), signal.SIGCONT)

    def update(self, number: int) -> None:
        """Replace the file of the replica's model, and reload it.

        Raises:
            BenchError: the replica does not serve the new file.
        """
        digest = put_new_file(self._store / self.model, self._onnx, number)
        headers = {"authorization": f"Bearer {_ADMINISTRATOR}"}
        address = f"{self.url}/models/{self.model}"
        answer = httpx.post(f"{address}/reload", headers=headers, timeout=120)
        serving = httpx.get(address, timeout=30).json().get("digest")
        if answer.status_code != httpx.codes.OK or serving != digest:
            message = (
                f"replica {self.name} serves {serving} after a reload of {digest}: "
                f"{answer.text[:200]}"
            )
            raise BenchError(message)

    def _processes(self) -> list[psutil.Process]:
        return self._server.processes() if self._server is not None else []

    def _signal(self, processes: Sequence[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _clean(self) -> None:
        """Reap the service and remove its temporary files."""
        if self._server is not None:
            self._server.__exit__(None, None, None)
            self._server = None
