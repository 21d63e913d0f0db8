"""One worker's gRPC server."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc.aio

from service.backend import Backend
from service.memory import trim_as_it_grows
from service.rpc.edge import RpcEdge
from service.settings import Settings

logger = logging.getLogger(__name__)

MOST_CONNECTION_SECONDS: Final = 20.0
"""Longest age of a connection. Then gRPC tells its client to open another, while calls on this one
are still answered. So a new worker gets its share of the connections, and one that ends gets rid of
its own. (A call that arrives while a server stops is lost; gRPC cannot tell clients beforehand.)"""

_AGE_JITTER: Final = 1.1
"""gRPC varies the age of connections by a tenth."""

_LOOK_SECONDS: Final = 0.05
_PING_SECONDS: Final = 60
_MAX_METADATA_BYTES: Final = 16 * 1024


class RpcServer:
    """Serves RPCs on one address, which all workers share.

    Args:
        backend: what answers.
        address: host and port, as gRPC writes them.
        ssl: BentoML's options for TLS; without a certificate, connections are not encrypted.
    """

    def __init__(self, backend: Backend, address: str, ssl: Mapping[str, Any]) -> None:
        self._backend = backend
        self._address = address
        self._ssl = ssl
        self.port = 0
        """Port that it listens on; 0 before it starts."""
        self._edge: RpcEdge
        self._server: Any = None
        self._trimming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen and serve, unless it does already. Call it in the event loop that is to serve."""
        if self._server is not None:
            return
        settings = self._backend.settings
        self._edge = RpcEdge(self._backend)
        server = grpc.aio.server(
            handlers=(self._edge,),
            options=options(settings),
            maximum_concurrent_rpcs=settings.max_connections,
        )
        try:
            if self._ssl.get("ssl_certfile"):
                self.port = server.add_secure_port(self._address, _credentials(self._ssl))
            else:
                self.port = server.add_insecure_port(self._address)
        except (OSError, RuntimeError) as error:
            logger.error("gRPC is off in this worker: %s", error)
            return
        await server.start()
        self._server = server
        self._trimming = asyncio.create_task(trim_as_it_grows())

    async def stop(self, seconds: float) -> None:
        """Stop listening, let clients move to other connections, and finish the calls that have
        begun, within a time limit."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        moved = loop.time() + min(seconds, _AGE_JITTER * connection_seconds(self._backend.settings))
        for listener in _sockets(self.port, listens=True):
            with suppress(OSError), listener:
                listener.shutdown(socket.SHUT_RDWR)  # gRPC's own descriptor stops listening too
        is_in_use = loop.time() - self._edge.last_call < MOST_CONNECTION_SECONDS
        while is_in_use and loop.time() < moved:
            connections = _sockets(self.port, listens=False)
            is_in_use = bool(connections)
            for connection in connections:
                connection.close()
            await asyncio.sleep(_LOOK_SECONDS)
        stopping = asyncio.create_task(self._server.stop(max(0.0, ends - loop.time())))
        await asyncio.sleep(0)  # it refuses new calls before the streams end
        self._edge.close_streams()
        await stopping
        if self._trimming is not None:
            self._trimming.cancel()


def connection_seconds(settings: Settings) -> float:
    """Return the age at which connections are renewed: within the time that a worker has to end."""
    return min(MOST_CONNECTION_SECONDS, max(1.0, settings.drain_seconds / 2))


def _sockets(port: int, *, listens: bool) -> list[socket.socket]:
    """Return duplicates of this process's TCP sockets with a local port: those that listen, or
    those that are connected."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError, ValueError):
            if entry.readlink().name.startswith("socket:"):
                one = socket.socket(fileno=os.dup(int(entry.name)))
                is_listener = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if bool(is_listener) is listens and _port_of(one) == port:
                    found.append(one)
                else:
                    one.close()
    return found


def _port_of(one: socket.socket) -> int | None:
    is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
    return int(one.getsockname()[1]) if is_tcp else None


def options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options: our limits. The size of a message is that before compression; gRPC
    1.85 stops decompressing there."""
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", round(1000 * settings.header_seconds)),
        ("grpc.http2.settings_timeout", round(1000 * settings.header_seconds)),
        ("grpc.keepalive_time_ms", 1000 * _PING_SECONDS),
        ("grpc.max_connection_age_ms", round(1000 * connection_seconds(settings))),
    ]


def _credentials(ssl: Mapping[str, Any]) -> Any:
    """Return the credentials of a server with the certificate that HTTP uses."""
    key, chain = (Path(ssl[name]).read_bytes() for name in ("ssl_keyfile", "ssl_certfile"))
    roots = ssl.get("ssl_ca_certs")
    return grpc.ssl_server_credentials(
        [(key, chain)],
        Path(roots).read_bytes() if roots else None,
        require_client_auth=bool(roots and ssl.get("ssl_cert_reqs")),
    )
