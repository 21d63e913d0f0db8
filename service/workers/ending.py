"""Close connections: after the answer, after a refusal, or because the client takes too long.

A connection that ends while its client may still be sending closes its own side first, then
discards a limited number of bytes for a limited time (RFC 9112, section 9.6).
"""

from collections.abc import Callable
from typing import Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import Kind, Problem
from service.workers.cycle import Cycle, Flow, last_answer
from service.workers.heads import why_unparsable
from service.workers.progress import WriteProgress, reset

MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024
"""Maximum number of bytes that an ending connection reads and discards."""


class EndingConnection(HttpToolsProtocol):
    """The part of a connection that ends it. The worker calls :meth:`check` once a second."""

    count: Callable[[Kind], None]
    """Callback for refusals that the application does not see, set by
    :func:`service.workers.server.run_worker`."""

    cycle: Cycle
    flow: Flow
    waits_since: float | None = None
    """Time, on the event loop's clock, since which the rest of a head or of a refused body has been
    awaited. None while a request is answered or the connection is idle."""
    idle_since: float | None = None
    """Time since which the next request has been awaited; None while one is read or answered. One
    check a second instead of a timer, which would cost each request a few microseconds."""

    _answering: Cycle | None = None
    """The oldest request without a complete answer; ``cycle`` is the newest."""
    _held: bytes = b""
    """Bytes received while a whole request waited for its answer, valid from ``_held_from`` on."""
    _in_head = True
    _head_bytes = 0
    _is_discarding = False
    """Whether received bytes are discarded."""
    _ends_since: float | None = None
    """Time since which the connection has been ending, with nothing more to send."""
    _discarded_bytes = 0
    _sent_all = False
    """Whether the client has closed its side and waits for its answers."""
    _progress: WriteProgress

    def end(self) -> None:
        """Close the connection once all output has been sent and the client stops sending."""
        if self.transport.is_closing() or self._ends_since is not None:
            return
        self.waits_since = None
        is_between = self._in_head and not self._head_bytes and not self._held
        if self._sent_all or (is_between and not self._is_discarding):
            self.transport.close()
            return
        self._is_discarding = True
        self._held, self.flow.holds = b"", False
        self._ends_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def refuse(self, kind: Kind, detail: str) -> None:
        """Answer an incomplete or invalid request, and end the connection.

        If earlier requests are still unanswered, they are answered instead.
        """
        self.waits_since = None
        if self.transport.is_closing() or self._is_discarding:
            return
        self.count(kind)
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            cycle.abandon()
            if self.pipeline:
                self.pipeline.popleft()
                before = self.pipeline[0][0] if self.pipeline else self._answering
                self.cycle = cycle = cast("Cycle", before)
        self._is_discarding = True
        if cycle is None or cycle.disconnected or cycle.response_complete:
            if cycle is None or cycle.disconnected or not cycle.more_body:
                date = self.server_state.default_headers
                self.transport.write(last_answer(Problem(kind, detail), date))
            self.end()
        else:
            cycle.keep_alive = False  # so that its answer ends the connection

    def _refuse_unparsable(self, error: httptools.HttpParserError) -> None:
        detail = f"the request is not valid HTTP/1.1: {why_unparsable(error)}"
        self.refuse(Kind.MALFORMED, detail)

    def shutdown(self) -> None:
        """End the connection after the current answer, or now if there is none."""
        if self._ends_since is not None:
            self.transport.close()
        else:
            super().shutdown()

    def check(self, now: float, patience: float) -> None:
        """End the connection if a head, the rest of a refused body, or a step of an answer has
        taken over ``patience`` seconds, or if it has been idle for the keep-alive time. ``now`` is
        on the event loop's clock, in seconds."""
        ends, idle = self._ends_since, self.idle_since
        is_over = ends is not None and now > ends + patience
        is_over |= idle is not None and now > idle + self.timeout_keep_alive
        if self.waits_since is not None and now > self.waits_since + patience:
            detail = f"the request's head was not complete after {patience:g} seconds"
            self.refuse(Kind.HEAD_TIMEOUT, detail)
            is_over = self._ends_since is not None  # the client has had its time
        if is_over:
            self.transport.close()
        if self._progress.is_stalled(self.transport, now, patience):
            self._abandon_all()
            reset(self.transport)

    def _abandon_all(self) -> None:
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cast("Cycle", cycle).abandon()
        self.pipeline.clear()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes <= MAX_DISCARDED_BYTES:
            return
        if self._ends_since is None:
            self.flow.pause_reading()
        else:
            self.transport.close()
