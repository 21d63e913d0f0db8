"""One request-response cycle of uvicorn, with flow control and early answers."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.exchange import ALWAYS, Answer
from service.problems import MEDIA_TYPE, Headers, Problem

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


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_ALWAYS: Final = _lines(ALWAYS)


def _pass() -> None:
    """Do nothing. Replaces a callback, so that a connection and its last request do not keep
    references to each other."""


class Whole:
    """A request that arrived whole and is answered without a task, in the place of a cycle."""

    __slots__ = (
        "_head", "_on_response", "_output", "disconnected", "keep_alive", "response_complete",
    )  # fmt: skip

    more_body = False
    message_event = asyncio.Event()
    """Never awaited; uvicorn sets it when a connection is lost."""

    def __init__(
        self,
        output: asyncio.Transport,
        head: "AnswerHead",
        keep_alive: bool,
        on_response: Callable[[], None],
    ) -> None:
        self._output = output
        self._head = head
        self._on_response = on_response
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    def reply(self, answer: Answer, more: Headers) -> None:
        """Write the answer, unless the client has gone."""
        if self.disconnected or self.response_complete:
            return
        self.response_complete = True
        headers = (*answer.headers, *more)
        if not self.keep_alive:
            headers = (*headers, (b"connection", b"close"))
        lines = _lines(headers)
        body = answer.body
        start = self._head.start(answer.status, answer.media_type)
        self._output.write(b"%b%d\r\n%b%b\r\n%b" % (start, len(body), _ALWAYS, lines, body))
        if not self.keep_alive:
            self._output.close()
        on_response, self._on_response = self._on_response, _pass
        on_response()

    def abandon(self) -> None:
        """Note that the client no longer waits for the answer."""
        self.disconnected = True


class AnswerHead:
    """The first lines of answers, prepared once a second, when the date in them changes."""

    def __init__(self) -> None:
        self._defaults: list[tuple[bytes, bytes]] = []
        self._starts: dict[tuple[int, bytes], bytes] = {}

    def renew(self, defaults: list[tuple[bytes, bytes]]) -> None:
        """Use these default headers from now on; uvicorn makes a new list for each date."""
        if defaults is not self._defaults:
            self._defaults = defaults
            self._starts.clear()

    def start(self, status: int, media_type: bytes) -> bytes:
        """Return the answer's first lines, up to the value of Content-Length."""
        start = self._starts.get((status, media_type))
        if start is None:
            lines = _lines((*self._defaults, (b"content-type", media_type)))
            start = STATUS_LINE[status] + lines + b"content-length: "
            self._starts[status, media_type] = start
        return start


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
    lines = _lines(headers)
    reason = problem.kind.title.encode()
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (problem.kind.status, reason, lines, body)
