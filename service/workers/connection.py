"""One client's connection: its requests are read one at a time, and every wait has a bound.

uvicorn's protocol class parses at once all that a client sends, loses the body of a request with an
Upgrade field, takes trailers for headers, waits for ever on a client that does not read, and closes
on a body that it has not read, which resets the connection and may cost the client its answer.
Here, bytes go to the parser in pieces: a head, its body, or a part of a chunked one. While a whole
request waits for its answer, the rest is held unparsed and nothing more is read. A connection that
ends while its client may still be sending first says so, then discards a bounded amount for a
bounded time (RFC 9112, section 9.6).
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
"""What a connection that ends still reads."""

_CHUNKED_PIECE_BYTES: Final = 16 * 1024
"""Where a chunked body ends is known only once it is parsed: other requests may be in the piece."""
_MOST_BEHIND: Final = 16
"""Such requests, at most."""

_MAPPED: Final = "::ffff:"
"""How an IPv4 address begins on a listener for both IPv4 and IPv6."""

_NO_FIELDS: Final = cast("list[tuple[bytes, bytes]]", deque(maxlen=0))
"""Stands for the headers once they are complete: the trailers of a chunked body are dropped, for
no check of the headers has seen them."""


class Connection(HttpToolsProtocol):
    """A connection of one worker; :meth:`check` is called for each once a second."""

    place: Place
    """This worker's row on the board, set by :func:`service.workers.server.run_worker`."""
    count: Callable[[Kind], None]
    """Called with each refusal that no application sees, set in the same place."""

    cycle: Cycle
    waits_since: float | None = None
    """Since when the rest of a head, or of a body that was refused, is awaited; on the event
    loop's clock. None while a request is answered or the connection is idle."""
    leaves = False
    """Whether the next answer is the last on this connection."""

    _answering: Cycle | None = None
    """The oldest request without a complete answer; ``cycle`` is the newest."""
    _held: bytes = b""
    """What was received while a whole request waited for its answer, from ``_held_from`` on."""
    _held_from = 0
    _in_head = True
    _head_bytes = 0
    _upgrade: tuple[bytes, str] | None = None
    """Method and HTTP version of a request that asks for another protocol."""
    _is_deaf = False
    """Whether what the client sends is dropped."""
    _ends_since: float | None = None
    """Since when the connection only discards."""
    _discarded_bytes = 0
    _sent_all = False
    """Whether the client has closed its side and waits for its answers."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects and says nothing has the time of a head."""
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
        """Nobody waits for any of the answers."""
        self._held = b""
        self._unset_keepalive_if_required()
        self._abandon_all()
        super().connection_lost(exc)
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Parse what may be parsed now."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._is_deaf:
            self._discard(len(data))
        elif self._held:
            self._hold(self._held[self._held_from :] + data, 0)
        else:
            self._parse(data, 0)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay open for the answers that a client which has sent all of its requests waits for."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or self._is_deaf:
            return False
        self._sent_all = True
        if not self._held:
            cycle.keep_alive = False
        return self.scheme == "http"  # asyncio's TLS transports cannot be half open

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self.waits_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Start the application; from here on, the request has its own deadline."""
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
            keep_alive=not self.leaves and version != "1.0" and parser.should_keep_alive(),
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
        """A part of the body's content."""
        cycle = self.cycle
        self._framing.content += len(body)
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The end of a request."""
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

    # What a cycle calls.

    def on_response_complete(self) -> None:
        """Go on with what the client has sent meanwhile."""
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
        """Bytes of the newest request's body that have not arrived; None: nobody knows."""
        for name, value in self.cycle.scope["headers"]:
            if name == b"content-length":
                return int(value) - self._framing.content
        return None

    # How a connection ends.

    def end(self) -> None:
        """Close as soon as what is written has been sent and the client sends no more."""
        if self.transport.is_closing() or self._ends_since is not None:
            return
        self.waits_since = None
        is_between = self._in_head and not self._head_bytes and not self._held
        if self._sent_all or (is_between and not self._is_deaf):
            self.transport.close()
            return
        self._is_deaf = True
        self._held, self.flow.holds = b"", False
        self._ends_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def refuse(self, kind: Kind, detail: str) -> None:
        """Answer what is no whole request, and end the connection.

        Whole requests before it are answered first; then there is no room for this answer.
        """
        self.waits_since = None
        if self.transport.is_closing() or self._is_deaf:
            return
        self.count(kind)
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            cycle.abandon()
            if self.pipeline:
                self.pipeline.popleft()
                before = self.pipeline[0][0] if self.pipeline else self._answering
                self.cycle = cycle = cast("Cycle", before)
        self._is_deaf = True
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
        """End after the present answer, or now where there is none."""
        if self._ends_since is not None:
            self.transport.close()
        else:
            super().shutdown()

    def check(self, now: float, patience: float) -> None:
        """End what has taken longer than ``patience``: a head, the rest of a refused body, or a
        step of an answer; ``now`` is on the event loop's clock, and both are in seconds."""
        if self.waits_since is not None and now > self.waits_since + patience:
            detail = f"no request was complete up to its body after {patience:g} seconds"
            self.refuse(Kind.HEAD_TIMEOUT, detail)
            if self._ends_since is not None:  # it was silent for long enough already
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

    # How bytes are parsed.

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
                    detail = f"at most {MAX_HEAD_BYTES:,} bytes are read of a request's head"
                    self.refuse(Kind.HEAD_TOO_LARGE, detail)
                    return
                if len(data) - head_ends <= content_length(data, begins, head_ends):
                    position = len(data)  # with what there is of its body: mostly, all
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
                        detail = "the chunks of the body are too small, or its trailers too long"
                        self.refuse(Kind.TOO_LARGE, detail)
            except httptools.HttpParserUpgrade as pause:
                position = begins + pause.args[0]
                self._begin_without_upgrade()
            except httptools.HttpParserError as error:
                self._refuse_unparsable(error)
            if self._is_deaf:
                return
        if (
            self._in_head
            and self.waits_since is None
            and self.timeout_keep_alive_task is None
            and (self.cycle is None or self.cycle.response_complete)
        ):
            self.waits_since = self.loop.time()  # data that is no request: empty lines

    def _hold(self, data: bytes, position: int) -> None:
        self._held, self._held_from = data, position
        self.flow.pause_reading()
        self.flow.holds = True

    def _go_on(self) -> None:
        data, self._held, self.flow.holds = self._held, b"", False
        if self._is_deaf or self.transport.is_closing():
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
        The parser takes what follows such a head for another protocol's."""
        (method, version), self._upgrade = self._upgrade or (b"CONNECT", ""), None
        if method == b"CONNECT":
            detail = "CONNECT is for proxies, and this server is none"
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
