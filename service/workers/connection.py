"""One client's connection: reads requests one at a time, and limits the duration of every wait.

uvicorn's protocol class parses everything a client sends at once, loses the body of a request with
an Upgrade field, takes trailers for headers, and waits for ever for a client that does not read. It
closes a connection with an unread body, which resets it, so that the client may lose its answer.

Here the parser receives bytes in pieces: a head, its body, or part of a chunked body. While a whole
request waits for its answer, later bytes are held unparsed and nothing more is read. A connection
that ends while its client may still be sending closes its own side first, then discards a limited
number of bytes for a limited time (RFC 9112, section 9.6).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import Kind, Problem
from service.workers.board import Field, Place
from service.workers.cycle import Cycle, Flow, Output, last_answer
from service.workers.framing import Framing
from service.workers.heads import (
    MAX_HEAD_BYTES,
    HeadEnd,
    content_length,
    why_unparsable,
    without_upgrade,
)
from service.workers.progress import WriteProgress, reset

MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024
"""Maximum number of bytes that an ending connection reads and discards."""

_CHUNKED_PIECE_BYTES: Final = 16 * 1024
"""Size of the pieces of a chunked body to parse; a piece may contain further requests."""
_MOST_BEHIND: Final = 16
"""Maximum number of such further requests."""

_MAPPED: Final = "::ffff:"
"""Prefix of an IPv4 address on a listener for both IPv4 and IPv6."""

_NO_FIELDS: Final = cast("list[tuple[bytes, bytes]]", deque(maxlen=0))
"""Replaces the list of headers once they are complete, and drops the trailers of a chunked body,
because the checks of headers do not cover them."""


class Connection(HttpToolsProtocol):
    """A connection of one worker. The worker calls :meth:`check` once a second."""

    place: Place
    """This worker's place on the board, set by :func:`service.workers.server.run_worker`."""
    count: Callable[[Kind], None]
    """Callback for refusals that the application does not see, set there too."""

    cycle: Cycle
    waits_since: float | None = None
    """Time, on the event loop's clock, since which the rest of a head or of a refused body has been
    awaited. None while a request is answered or the connection is idle."""
    is_last = False
    """Whether the next answer is the last on this connection."""

    _answering: Cycle | None = None
    """The oldest request without a complete answer; ``cycle`` is the newest."""
    _held: bytes = b""
    """Bytes received while a whole request waited for its answer, valid from ``_held_from`` on."""
    _held_from = 0
    _in_head = True
    _head_bytes = 0
    _upgrade: tuple[bytes, str] | None = None
    """Method and HTTP version of a request with an Upgrade field."""
    _is_discarding = False
    """Whether received bytes are discarded."""
    _ends_since: float | None = None
    """Time since which the connection has been ending, with nothing more to send."""
    _discarded_bytes = 0
    _sent_all = False
    """Whether the client has closed its side and waits for its answers."""

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first request's head."""
        super().connection_made(transport)
        self.flow: Flow = Flow(transport)
        self._output = cast("asyncio.Transport", Output(transport, self.end))
        self._head_end = HeadEnd()
        self._framing = Framing()
        self._progress = WriteProgress()
        if self.client is not None and self.client[0].startswith(_MAPPED):
            self.client = (self.client[0].removeprefix(_MAPPED), self.client[1])
        self.waits_since = self.loop.time()
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Abandon all requests, because no client waits for the answers."""
        self._held = b""
        self._unset_keepalive_if_required()
        self._abandon_all()
        super().connection_lost(exc)
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, or hold them while a request waits for its answer."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._is_discarding:
            self._discard(len(data))
        elif self._held:
            self._hold(self._held[self._held_from :] + data, 0)
        else:
            self._parse(data, 0)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for a client that sends no more but waits for answers."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self._is_discarding:
            return False
        self._sent_all = True
        if not self._held:
            cycle.keep_alive = False
        return self.scheme == "http"  # asyncio's TLS transports cannot be half open

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Start the time limit of a request's head, at its first byte."""
        super().on_message_begin()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self.waits_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Start the application. From here on, the request's own deadline applies."""
        parser, scope = self.parser, self.scope
        method, version = parser.get_method(), parser.get_http_version()
        if parser.should_upgrade():
            self._upgrade = method, version
            return
        self.waits_since = None
        self._in_head = False
        self._framing.begin()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        self.headers = _NO_FIELDS
        previous = self.cycle
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self._output,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=not self.is_last and version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.body_left = self.body_left
        if previous is None or previous.response_complete:
            self._answering = cycle
            self._start_asgi_task(cycle, self.app)
        elif len(self.pipeline) < _MOST_BEHIND:
            self.pipeline.appendleft((cycle, self.app))
        else:
            self.cycle = previous
            message = "too many requests follow a chunked body"
            raise httptools.HttpParserError(message)

    def on_body(self, body: bytes) -> None:
        """Add a part of the body's content."""
        cycle = self.cycle
        self._framing.content += len(body)
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Note the end of a request's body."""
        if self._upgrade is not None:
            return  # the body is not parsed yet
        cycle = self.cycle
        self._in_head = True
        self._head_bytes = 0
        cycle.more_body = False
        if cycle.response_complete:  # its body came after the answer
            self.waits_since = None
            self._await_next_request()
        else:
            cycle.message_event.set()

    # Called by a cycle.

    def on_response_complete(self) -> None:
        """Continue with the client's next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._ends_since is not None:
            return
        if self.pipeline:
            cycle, application = self.pipeline.pop()
            self._answering = cast("Cycle", cycle)
            self._start_asgi_task(cycle, application)
        elif self._held:
            self.loop.call_soon(self._go_on)
        elif self._sent_all:
            self.transport.close()
        else:
            self.flow.resume_reading()
            if self.cycle.more_body:
                self.waits_since = self.loop.time()
            else:
                self._await_next_request()

    def body_left(self) -> int | None:
        """Return the bytes of the newest request's body still to arrive; None if unknown."""
        for name, value in self.cycle.scope["headers"]:
            if name == b"content-length":
                return int(value) - self._framing.content
        return None

    # Ending a connection.

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
        taken over ``patience`` seconds. ``now`` is on the event loop's clock, in seconds."""
        if self.waits_since is not None and now > self.waits_since + patience:
            detail = f"the request's head was not complete after {patience:g} seconds"
            self.refuse(Kind.HEAD_TIMEOUT, detail)
            if self._ends_since is not None:  # the client has had its time
                self.transport.close()
        elif self._ends_since is not None and now > self._ends_since + patience:
            self.transport.close()
        if self._progress.is_stalled(self.transport, now, patience):
            self._abandon_all()
            reset(self.transport)

    def _abandon_all(self) -> None:
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cast("Cycle", cycle).abandon()
        self.pipeline.clear()

    # Parsing.

    def _parse(self, data: bytes, position: int) -> None:
        """Parse ``data`` from ``position`` on, up to the end of the first whole request."""
        while position < len(data):
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete and not cycle.more_body:
                self._hold(data, position)
                return
            begins = position
            left: int | None = 0
            if self._in_head:
                position = head_ends = self._head_end.find(data, begins)
                self._head_bytes += head_ends - begins
                if self._head_bytes > MAX_HEAD_BYTES:
                    detail = f"a request's head may have at most {MAX_HEAD_BYTES:,} bytes"
                    self.refuse(Kind.HEAD_TOO_LARGE, detail)
                    return
                if len(data) - head_ends <= content_length(data, begins, head_ends):
                    position = len(data)  # include the body received so far, usually all of it
            else:
                left = self.body_left()
                piece = _CHUNKED_PIECE_BYTES if left is None else max(left, 1)
                position = min(len(data), begins + piece)
            whole = position - begins == len(data)
            try:
                self.parser.feed_data(data if whole else memoryview(data)[begins:position])
                if left is None:
                    self._head_end.note(data[max(0, position - 3) : position])
                    if self._framing.is_excessive(position - begins) and not self._in_head:
                        detail = "the body's chunks are too small or its trailers are too long"
                        self.refuse(Kind.TOO_LARGE, detail)
            except httptools.HttpParserUpgrade as pause:
                position = begins + pause.args[0]
                self._begin_without_upgrade()
            except httptools.HttpParserError as error:
                self._refuse_unparsable(error)
            if self._is_discarding:
                return
        if (
            self._in_head
            and self.waits_since is None
            and self.timeout_keep_alive_task is None
            and (self.cycle is None or self.cycle.response_complete)
        ):
            self.waits_since = self.loop.time()  # empty lines only

    def _hold(self, data: bytes, position: int) -> None:
        self._held, self._held_from = data, position
        self.flow.pause_reading()
        self.flow.holds = True

    def _go_on(self) -> None:
        data, self._held, self.flow.holds = self._held, b"", False
        if self._is_discarding or self.transport.is_closing():
            return
        self._parse(data, self._held_from)
        if self._held or self.transport.is_closing():
            return
        if self._sent_all and not self.eof_received():
            self.end()
        else:
            self.flow.resume_reading()

    def _begin_without_upgrade(self) -> None:
        """Parse a head again without its Upgrade field, which a server may ignore (RFC 9110, 7.8).
        With the field, the parser takes the bytes after the head for another protocol."""
        (method, version), self._upgrade = self._upgrade or (b"CONNECT", ""), None
        if method == b"CONNECT":
            detail = "CONNECT is for proxies, and this server is not a proxy"
            self.refuse(Kind.MALFORMED, detail)
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(without_upgrade(method, self.url, version, self.headers))
        except httptools.HttpParserError as error:
            self._refuse_unparsable(error)

    def _await_next_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes <= MAX_DISCARDED_BYTES:
            return
        if self._ends_since is None:
            self.flow.pause_reading()
        else:
            self.transport.close()
