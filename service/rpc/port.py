"""Decide whether gRPC is on, and reserve its port.

Each worker listens on the port itself, with ``SO_REUSEPORT``: the kernel spreads connections over
them. With that option a second server of the same user could listen there too and would get half of
the first one's connections. So the port is reserved first, by a socket that never listens.
"""

import logging
import os
import socket
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from service.workers.board import Board

logger = logging.getLogger(__name__)

PACKAGES: Final = ("grpc", "grpc_reflection", "grpc_health")
INSTALL: Final = "pip install grpcio grpcio-health-checking grpcio-reflection protobuf"


def is_installed() -> bool:
    """Return whether gRPC's packages are installed. Does not import them."""
    return all(find_spec(package) is not None for package in PACKAGES)


def rpc_address_of(board: Board, host: str, port: int) -> str | None:
    """Return the address on which the workers are to serve gRPC, as gRPC writes it; None: gRPC is
    off, and the log says why in one line.

    The first supervisor decides and reserves the port, for as long as it or a worker runs. A later
    one follows it: workers of the first may still listen.

    Args:
        board: the board that all supervisors and workers of this server share.
        host: address to listen on.
        port: port to listen on; 0: gRPC is off.
    """
    if not port or board.listens_for_rpc is False:
        return None
    reason = _why_off(host, port, is_ours=board.listens_for_rpc is True)
    board.listens_for_rpc = reason is None
    if reason is not None:
        logger.warning("gRPC is off: %s", reason)
        return None
    # Its own log is text, not JSON, and clients could flood it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import_module("service.rpc.server")  # once, before workers are forked
    logger.info("gRPC is on, on port %d of %s", port, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why_off(host: str, port: int, *, is_ours: bool) -> str | None:
    """Reserve the port. Return None, or why it cannot be used."""
    if not is_installed():
        return f"its packages are missing. To add them: {INSTALL}"
    try:
        if not is_ours:
            with closing(_new_socket(host)) as probe:
                # Connections that ended lately do not count, but a listener does.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        holder = _new_socket(host)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
    except OSError as error:
        return (
            f"port {port} of {host} cannot be used ({error.strerror}). Set CIFAR10_GRPC_PORT to "
            "another, or to 0 for no gRPC"
        )
    holder.detach()  # keep it open until this process and its workers have ended
    return None


def _new_socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
