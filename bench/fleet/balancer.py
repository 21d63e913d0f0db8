"""HAProxy with the settings of ``deploy/haproxy.cfg``, and its administration socket."""

import contextlib
import csv
import io
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fleet.network import GATEWAY
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError

CONFIGURATION: Final = PROJECT_ROOT / "deploy" / "haproxy.cfg"
URL: Final = f"http://{GATEWAY}:8080"
_BACKEND: Final = "cifar10"
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Seen:
    """What the balancer reports about one replica."""

    up: bool
    in_flight: int
    sent: int
    """Number of requests sent to it so far."""


class Balancer:
    """A running HAProxy."""

    def __init__(self, administration: Path) -> None:
        self._socket = administration

    def seen(self, replica: str) -> Seen:
        """Return what the balancer knows about a replica."""
        table = self._ask(f"show stat {_BACKEND} 4 -1").removeprefix("# ")
        for row in csv.DictReader(io.StringIO(table)):
            if row["svname"] == replica:
                up = row["status"].startswith("UP")
                return Seen(up, int(row["scur"]), int(row["stot"]))
        message = f"HAProxy has no server {replica!r}: {table[:200]}"
        raise BenchError(message)

    def set_state(self, replica: str, state: str) -> None:
        """Give the replica new requests (``ready``) or none (``drain``)."""
        self._ask(f"set server {_BACKEND}/{replica} state {state}")

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                return answer.read()


@contextlib.contextmanager
def balancer(folder: Path) -> Iterator[Balancer]:
    """Run HAProxy until the block ends; its files are in ``folder``.

    Raises:
        BenchError: it does not start.
    """
    administration = folder / "admin.sock"
    text = CONFIGURATION.read_text()
    text = text.replace("/run/haproxy/admin.sock", str(administration))
    path = folder / "haproxy.cfg"
    path.write_text(text.replace("bind :80", f"bind {GATEWAY}:8080"))
    log = folder / "haproxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            ["haproxy", "-db", "-f", str(path)],  # noqa: S607 - Debian's
            stdout=output,
            stderr=output,
        )
    try:
        while not administration.exists():
            if process.poll() is not None:
                message = f"HAProxy has ended: {log.read_text()[-500:]}"
                raise BenchError(message)
            time.sleep(_LOOK_SECONDS)
        yield Balancer(administration)
    finally:
        process.terminate()
        process.wait()
