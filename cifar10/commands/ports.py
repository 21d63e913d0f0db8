"""Check whether a server can listen on a port, and suggest another."""

import contextlib
import socket
from typing import Final

_PROC: Final = "/proc"


def is_free(host: str | None, port: int) -> bool:
    """Return whether a server could listen on ``port`` of ``host`` (None: on all addresses)."""
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Recently closed connections do not prevent a server from listening, so ignore them too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port_after(port: int) -> int | None:
    """Return the next free port; None if none of the next hundred is free."""
    others = range(port + 1, min(port + 101, 65536))
    return next((one for one in others if is_free(None, one)), None)


def busy_message(host: str | None, port: int) -> str:
    """Return a one-line message that the port is taken, with the remedy."""
    where = f"{host}:{port}" if host else f"port {port}"
    other = free_port_after(port)
    remedy = f"stop that program, or choose another port: cifar10 serve --port {other or 'PORT'}"
    with contextlib.suppress(OSError), socket.create_connection((host or "localhost", port), 1):
        return f"{where} is in use; {remedy}"
    return f"cannot listen on {where}; {remedy}"
