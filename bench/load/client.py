"""Lightweight HTTP/1.1 load client: kept-alive asyncio connections, parsed by httptools.

It posts bodies to one route and reads the status of each response. A general client costs several
times as much per request, which on a small machine takes time from the measured server.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import httptools

from bench.load.sent import NO_ANSWER as NO_ANSWER
from cifar10.errors import BenchError

TIMEOUT_SECONDS: Final = 30.0
MOST_CONNECTIONS: Final = 512
"""Maximum number of connections of one client.

An open loop that falls behind must not use up the descriptors that the event loop can watch
(:func:`bench.load.loops.run`).
"""

IDLE_SECONDS: Final = 4.0
"""Idle time in seconds after which a connection is no longer used.

Servers close idle connections (uvicorn after five seconds). A request that crosses the close is
lost, and RFC 9112, 9.3.1 allows only idempotent requests to be sent again.
"""


class BrokenAnswerError(Exception):
    """The connection ended before the response was complete, or the response was not HTTP."""


class _Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # data without a request: the rest of the stream cannot be trusted
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.close()
            if not self._answer.done():
                message = f"expected an HTTP/1.1 response, got {data[:80]!r}: {error}"
                self._answer.set_exception(BrokenAnswerError(message))

    def on_message_complete(self) -> None:
        """Complete the request; the parser calls this at the end of a response."""
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue: the final response follows
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            message = "the connection ended before the response was complete"
            self._answer.set_exception(BrokenAnswerError(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class HttpClient:
    """Client that posts bodies to one route.

    Connections are opened as needed and kept, up to a bound. A request waits if all of them are
    busy.

    Args:
        url: ``http://host:port``.
        route: path and query.
        bodies: request bodies, posted in turn.
        headers: additional headers, the same for all bodies.
        most_connections: maximum number of connections in use at one time.
        timeout_seconds: time limit for getting a connection and the response together.
        idle_seconds: idle time after which a connection is not used again.

    Raises:
        BenchError: the URL is not ``http``; with TLS the generator would be the bottleneck.
    """

    def __init__(
        self,
        url: str,
        route: str,
        bodies: Sequence[bytes],
        content_type: str = "image/png",
        headers: Mapping[str, str] | None = None,
        most_connections: int = MOST_CONNECTIONS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            message = f"the load generator needs an http:// URL, got {url}"
            raise BenchError(message)
        self._host, self._port = parts.hostname, parts.port or 80
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._requests = [
            (
                f"POST {route} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(body)}\r\n{more}\r\n"
            ).encode()
            + body
            for body in bodies
        ]
        self._idle: list[tuple[_Connection, float]] = []
        """Each idle connection with the event-loop time at which it became idle; the latest last.
       """
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds
        self._most_connections = most_connections
        self._free = asyncio.Semaphore(most_connections)

    async def send(self, number: int) -> int:
        """Post the body with this number, modulo the number of bodies.

        Returns:
            The response's status, or :data:`NO_ANSWER`.
        """
        return await self.send_bytes(self._requests[number % len(self._requests)])

    async def send_bytes(self, request: bytes) -> int:
        """Send a complete request built by the caller.

        Returns:
            The response's status, or :data:`NO_ANSWER`.
        """
        connection = None
        try:
            async with asyncio.timeout(self._timeout_seconds), self._free:
                connection = await self._connect()
                status = await connection.ask(request)
                if connection.usable:
                    self._idle.append((connection, asyncio.get_running_loop().time()))
        except (OSError, BrokenAnswerError, TimeoutError):
            if connection is not None:
                connection.close()
            return NO_ANSWER
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        return status

    async def open_connections(self, count: int) -> None:
        """Open ``count`` connections in advance, so that no measured request has to open one.

        Raises:
            BenchError: nothing listens at the URL.
        """
        try:
            opened = [await self._open() for _ in range(count)]
        except OSError as error:
            message = f"no connection to {self._host}:{self._port}: {error}"
            raise BenchError(message) from error
        now = asyncio.get_running_loop().time()
        self._idle += [(connection, now) for connection in opened]

    def close(self) -> None:
        """Close all idle connections; the client can be used again, also on another event loop."""
        while self._idle:
            self._idle.pop()[0].close()
        self._free = asyncio.Semaphore(self._most_connections)  # bound to one event loop

    async def _connect(self) -> _Connection:
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle:
            connection, since = self._idle.pop()
            if connection.usable and since >= oldest:
                return connection
            connection.close()
        return await self._open()

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port)
        return made
