"""A connection without a socket: a transport that records, a client and an application."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.problems import Kind
from service.workers.board import Place
from service.workers.connection import Connection

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Transport that records writes and whether reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.closed = self.ended = False
        self.unsent = 0

    def write(self, data: Any) -> None:
        assert not self.closed, "written to a closed transport"
        assert not self.ended, "written after the end"
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("::ffff:192.0.2.1", 5), "sockname": ("::1", 80)}.get(name, default)


class Client:
    """Client of a connection whose application answers on command."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        """(scope, body) of each request that reached the application."""
        self.gone = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refused: list[Kind] = []
        config = uvicorn.Config(
            self._answer,
            http=Connection,
            ws="none",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=60,
        )
        config.load()
        Connection.place = Place.alone()
        Connection.count = staticmethod(self.refused.append)
        Connection.begin = None
        self.connection = Connection(config, ServerState(), {})
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more and scope["path"] != "/unread":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.requests.append((scope, body))
        await self.may_answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(self, *packets: bytes) -> None:
        """Send packets with respect to flow control, then let all pending work finish."""
        for packet in packets:
            while not self.transport.reads:
                await asyncio.sleep(0)
            self.connection.data_received(packet)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def statuses(self) -> list[int]:
        lines = self.transport.written.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]

    def stop(self) -> None:
        self.connection._unset_keepalive_if_required()


Scenario = Callable[[Client], Awaitable[None]]
