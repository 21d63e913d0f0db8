"""A network of the drill's own: hosts in network namespaces on one bridge.

Nothing is left behind: a namespace ends with its last process, and each host's process ends when
this one does.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cifar10.errors import BenchError

GATEWAY: Final = "10.77.0.1"
_CLONE_NEWNET: Final = 0x4000_0000
_TOOLS: Final = ("ip", "unshare", "nsenter", "haproxy")


class DrillSkippedError(Exception):
    """This machine or account cannot run the drill; the message says what is missing."""


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """Move this thread, and what it starts, into a network namespace with a bridge; move it back at
    the end.

    Raises:
        DrillSkippedError: a program is missing, or namespaces are not permitted.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        message = f"needs the programs {', '.join(missing)} (Debian: iproute2, util-linux, haproxy)"
        raise DrillSkippedError(message)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(_CLONE_NEWNET):
            message = f"network namespaces are not permitted: {os.strerror(ctypes.get_errno())}"
            raise DrillSkippedError(message)
        try:
            ip("link set lo up")
            ip("link add fleet type bridge")
            ip(f"addr add {GATEWAY}/24 dev fleet")
            ip("link set fleet up")
            yield
        finally:
            if library.setns(before.fileno(), _CLONE_NEWNET):
                message = f"cannot leave the drill's network: {os.strerror(ctypes.get_errno())}"
                raise BenchError(message)


class Host:
    """A network namespace with one address on the bridge; a context manager.

    Args:
        number: number of the host, from 1.
    """

    def __init__(self, number: int) -> None:
        self.address = f"10.77.0.{10 + number}"
        self._cable = f"host{number}"

    def __enter__(self) -> Self:
        command = ["unshare", "--net", "sh", "-c", "echo there; exec cat"]
        self._holder = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if self._holder.stdout is None or not self._holder.stdout.readline():
            message = "unshare did not make a network namespace"
            raise DrillSkippedError(message)
        peer = f"{self._cable}p"
        ip(f"link add {self._cable} type veth peer name {peer}")
        ip(f"link set {peer} netns {self._holder.pid}")
        ip(f"link set {self._cable} master fleet up")
        for step in ("link set lo up", f"addr add {self.address}/24 dev {peer}"):
            ip(step, *self.inside())
        ip(f"link set {peer} up", *self.inside())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.kill()
        self._holder.communicate()
        with contextlib.suppress(BenchError):  # the pair may have gone with the namespace
            ip(f"link del {self._cable}")

    def inside(self, *command: str) -> tuple[str, ...]:
        """Return ``command`` prefixed so that it runs on this host."""
        return ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *command)

    def cut(self) -> None:
        """Cut the host off: its packets are dropped, and no connection is closed."""
        ip(f"link set {self._cable} down")

    def join(self) -> None:
        """Connect the host again."""
        ip(f"link set {self._cable} up")


def ip(arguments: str, *prefix: str) -> None:
    """Run ``ip`` with these arguments, after the command ``prefix``.

    Raises:
        BenchError: it failed.
    """
    command = [*prefix, "ip", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - our own command
    if done.returncode:
        message = f"{' '.join(command)}: {done.stderr.strip()}"
        raise BenchError(message)
