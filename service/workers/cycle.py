"""One request-response cycle of uvicorn, with flow control and early answers."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.problems import MEDIA_TYPE, Problem

KEPT_BODY_BYTES: Final = 256 * 1024
"""Largest unread body of a refused request that is read to keep the connection open. With a larger
one the connection ends."""


class Flow(FlowControl):
    """Flow control that does not resume reading while held requests wait."""

    holds = False

    def resume_reading(self) -> None:
        """Resume reading unless requests are held. A cycle calls this whenever it wants its
        body."""
        if self.read_paused and not self.holds:
            super().resume_reading()


class Output:
    """Stands in for a cycle's transport: passes writes on, and closes the connection our way."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Cycle(RequestResponseCycle):
    """A request and its answer, which may be sent before the request's body has arrived."""

    body_left: Callable[[], int | None]
    """Returns the number of bytes of the body still to arrive; None if unknown."""

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Send a part of the answer. With the first part, decide whether to keep the connection."""
        if self.more_body and not self.response_started:
            # A client that waits for "100 Continue" may or may not send the body now.
            left = self.body_left()
            if self.waiting_for_100_continue or left is None or left > KEPT_BODY_BYTES:
                self.keep_alive = False
        return super().send(message)

    def abandon(self) -> None:
        """Tell the application that the client no longer waits for the answer."""
        self.disconnected = True
        self.waiting_for_100_continue = False
        self.message_event.set()


def last_answer(problem: Problem, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the bytes of a problem's answer, after which the connection ends."""
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
