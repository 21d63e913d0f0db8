"""A request with its answer, as uvicorn drives an application through it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.problems import MEDIA_TYPE, Problem

KEPT_BODY_BYTES: Final = 256 * 1024
"""A request may be refused before its body has arrived. Up to this much of it is read to keep the
connection; for more, the connection ends."""


class Flow(FlowControl):
    """Reads no more while requests that have been read wait for their turn."""

    holds = False

    def resume_reading(self) -> None:
        """Read on, where nothing waits. A cycle asks for it whenever it wants its body."""
        if self.read_paused and not self.holds:
            super().resume_reading()


class Output:
    """What a cycle takes for the transport: it writes there, and ends the connection in our way."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Cycle(RequestResponseCycle):
    """A request and its answer, which may come before the request's body has."""

    body_left: Callable[[], int | None]
    """Tells how many bytes of the body have not arrived; None: nobody knows."""

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send a part of the answer; with its first, decide whether the connection goes on."""
        if self.more_body and not self.response_started:
            # A client that waits for "100 Continue" may or may not send the body now.
            left = self.body_left()
            if self.waiting_for_100_continue or left is None or left > KEPT_BODY_BYTES:
                self.keep_alive = False
        return super().send(message)

    def abandon(self) -> None:
        """Tell the application that nobody waits for the answer."""
        self.disconnected = True
        self.waiting_for_100_continue = False
        self.message_event.set()


def last_answer(problem: Problem, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The bytes of an answer after which the connection ends."""
    body = problem.body()
    headers = (
        (b"content-type", MEDIA_TYPE),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *problem.headers,
        *more,
    )
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    reason = problem.kind.title.encode()
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (problem.kind.status, reason, lines, body)
