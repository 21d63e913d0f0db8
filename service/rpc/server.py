"""One worker's gRPC server."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc.aio

from service.backend import Backend
from service.rpc.edge import RpcEdge
from service.settings import Settings

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 300
"""Time after which a connection without calls is closed. gRPC's clients connect again by
themselves."""

CONNECTION_SECONDS: Final = 600
"""Age at which a connection is closed once its calls are answered. Its client connects again, maybe
to another worker, so that a new worker gets its share."""

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

    async def stop(self, seconds: float) -> None:
        """Stop listening, and finish the calls that have begun, within a time limit."""
        if self._server is not None:
            stopping = asyncio.create_task(self._server.stop(seconds))
            await asyncio.sleep(0)  # it refuses new calls before the streams end
            self._edge.close_streams()
            await stopping


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
        ("grpc.max_connection_idle_ms", 1000 * IDLE_SECONDS),
        ("grpc.max_connection_age_ms", 1000 * CONNECTION_SECONDS),
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
