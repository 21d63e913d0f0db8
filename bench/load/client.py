"""A small HTTP/1.1 client for load: kept-alive connections on asyncio, and nothing else.

It asks one fixed question (POST of a body to one route) and reads the status of the answer. A
general client costs several times as much per request, which on a small machine is time taken
from the server that is measured.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cifar10.errors import BenchError

NO_ANSWER: Final = 0
"""The status of a request that got none."""
TIMEOUT_SECONDS: Final = 30.0
MOST_CONNECTIONS: Final = 512
"""Of one client: an open loop that falls behind must not run this process out of the descriptors
that its event loop can watch (:func:`bench.load.loops.run`)."""

IDLE_SECONDS: Final = 4.0
"""A connection that has been idle for longer is not used again. Servers close idle connections,
after five seconds where uvicorn does it, and a request that meets the end of its connection is lost
without either side being at fault (RFC 9112, 9.3.1 lets only idempotent ones be sent again)."""

_HEAD_END: Final = b"\r\n\r\n"


class BrokenAnswerError(Exception):
    """The connection ended, or what came was no HTTP/1.1 answer with a length."""


class _Connection(asyncio.Protocol):
    """One connection; one question at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = bytearray()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        self._answer = asyncio.get_running_loop().create_future()
        self._received.clear()
        if self._transport is not None:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = self._answer
        if answer is None or answer.done():
            self.close()  # nobody asked: nothing that follows could be trusted
            return
        end = self._received.find(_HEAD_END)
        if end < 0:
            return
        try:
            status, length, keep = parse_head(bytes(self._received[:end]))
        except BrokenAnswerError as error:
            answer.set_exception(error)
            self.close()
            return
        start = end + len(_HEAD_END)
        try:
            whole = (
                chunks_are_whole(self._received, start)
                if length is None
                else len(self._received) >= start + length
            )
        except BrokenAnswerError as error:
            answer.set_exception(error)
            self.close()
            return
        if whole:
            if not keep:
                self.close()
            answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            message = "the connection ended before the answer was complete"
            self._answer.set_exception(BrokenAnswerError(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def chunks_are_whole(data: bytes | bytearray, start: int) -> bool:
    """Whether a chunked body that begins at ``start`` has come to its end (RFC 9112, 7.1).

    Raises:
        BrokenAnswerError: a chunk's size is no number.
    """
    while (line_end := data.find(b"\r\n", start)) >= 0:
        try:
            size = int(bytes(data[start:line_end]).partition(b";")[0], 16)
        except ValueError as error:
            message = f"expected a chunk's size, got {bytes(data[start:line_end])[:80]!r}"
            raise BrokenAnswerError(message) from error
        start = line_end + 2
        if size == 0:
            return data.find(b"\r\n", start) == start or data.find(_HEAD_END, start) >= 0
        start += size + 2
    return False


def parse_head(head: bytes) -> tuple[int, int | None, bool]:
    """Status, length of the body (None: it comes in chunks), and whether the connection stays open
    (RFC 9112).

    Raises:
        BrokenAnswerError: not HTTP/1.1, or an answer whose end cannot be told.
    """
    first, *lines = head.split(b"\r\n")
    try:
        version, status, *_ = first.split(b" ", 2)
        fields = dict(line.lower().split(b":", 1) for line in lines)
        chunked = fields.get(b"transfer-encoding", b"").strip() == b"chunked"
        length = None if chunked else int(fields[b"content-length"])
        found = int(status)
    except (ValueError, KeyError) as error:
        message = f"expected an HTTP/1.1 answer with Content-Length, got {head[:80]!r}"
        raise BrokenAnswerError(message) from error
    closes = fields.get(b"connection", b"").strip() == b"close" or version != b"HTTP/1.1"
    return found, length, not closes


@dataclass
class _Place:
    host: str
    port: int


class HttpClient:
    """Posts bodies to one route. Connections are opened as needed and kept, up to a bound; a
    request that finds all of them busy waits for one.

    Args:
        url: ``http://host:port``.
        route: path and query.
        bodies: what is posted, in turn.
        content_type: of the bodies.
        headers: more of them, the same for all bodies.
        most_connections: busy at one time.
        timeout_seconds: for the wait for a connection and the answer together.
        idle_seconds: after which an idle connection is not used again.

    Raises:
        BenchError: not an ``http`` URL: TLS would measure the generator.
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
            message = f"scenarios and agree need an http:// URL, got {url}"
            raise BenchError(message)
        self._place = _Place(parts.hostname, parts.port or 80)
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
        """Each with when it became idle, on the event loop's clock; the latest last."""
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds
        self._most_connections = most_connections
        self._free = asyncio.Semaphore(most_connections)

    async def send(self, number: int) -> int:
        """Post body ``number`` (modulo how many there are); its status, or :data:`NO_ANSWER`."""
        return await self.send_bytes(self._requests[number % len(self._requests)])

    async def send_bytes(self, request: bytes) -> int:
        """Send a whole request of another's making; its status, or :data:`NO_ANSWER`."""
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
        """Have ``count`` connections ready, so that no measured request has to make one.

        Raises:
            BenchError: nobody listens there.
        """
        try:
            opened = [await self._open() for _ in range(count)]
        except OSError as error:
            message = f"no connection to {self._place.host}:{self._place.port}: {error}"
            raise BenchError(message) from error
        now = asyncio.get_running_loop().time()
        self._idle += [(connection, now) for connection in opened]

    def close(self) -> None:
        """End all idle connections; the client may be used again, on another event loop too."""
        while self._idle:
            self._idle.pop()[0].close()
        self._free = asyncio.Semaphore(self._most_connections)  # one belongs to one loop

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
        _, made = await loop.create_connection(_Connection, self._place.host, self._place.port)
        return made
