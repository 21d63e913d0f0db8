"""One client's connection: reads requests one at a time, and limits the duration of every wait.

uvicorn's protocol class parses everything a client sends at once, loses the body of a request with
an Upgrade field, treats trailers as headers, and waits without limit for a client that does not
read. It closes a connection with an unread body, which resets it, so that the client may lose its
answer (:mod:`service.workers.ending`).

Here the parser receives bytes in pieces: a head, its body, or part of a chunked body. While a whole
request waits for its answer, later bytes are held unparsed and nothing more is read. A request that
arrives whole, in one piece, is offered to the edge's ``begin``, which answers most images without a
task; all others go through a cycle and a task, as in uvicorn. Heads of requests answered so are
remembered and not parsed again (:mod:`service.workers.known_heads`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from service.exchange import Reply, Scope
from service.problems import Kind
from service.workers.board import Field, Place
from service.workers.cycle import AnswerHead, Cycle, Flow, Output, Whole
from service.workers.ending import EndingConnection
from service.workers.framing import Framing
from service.workers.heads import MAX_HEAD_BYTES, HeadEnd, content_length, without_upgrade
from service.workers.known_heads import KnownHeads
from service.workers.progress import WriteProgress

_CHUNKED_PIECE_BYTES: Final = 16 * 1024
"""Size of the pieces of a chunked body to parse; a piece may contain further requests."""
_MOST_BEHIND: Final = 16
"""Maximum number of such further requests."""

_MAPPED: Final = "::ffff:"
"""Prefix of an IPv4 address on a listener for both IPv4 and IPv6."""

_NO_FIELDS: Final = cast("list[tuple[bytes, bytes]]", deque(maxlen=0))
"""Replaces the list of headers once they are complete, and drops the trailers of a chunked body,
because the checks of headers do not cover them."""


class Connection(EndingConnection):
    """A connection of one worker."""

    place: Place
    """This worker's place on the board, set by :func:`service.workers.server.run_worker`."""
    begin: Callable[[Scope, bytes, Reply], bool] | None = None
    """:meth:`service.edge.Edge.begin`, set there too."""

    is_last = False
    """Whether the next answer is the last on this connection."""

    _held_from = 0
    _in_message = False
    """Whether the parser has begun a request and not completed it."""
    _upgrade: tuple[bytes, str] | None = None
    """Method and HTTP version of a request with an Upgrade field."""
    _is_whole = False
    """Whether the bytes being parsed are one request with all of its body."""
    _whole: Whole | None = None
    """The request for which :attr:`_is_whole` is set, until its end has been parsed."""
    _whole_body = b""
    _whole_data = b""
    """All bytes of that request, if they arrived together."""
    _answer_head = AnswerHead()
    _known_heads = KnownHeads()
    """Shared by all connections, as :attr:`_answer_head` is."""

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
        self._abandon_all()
        super().connection_lost(exc)
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, or hold them while a request waits for its answer."""
        self.idle_since = None
        if self._is_discarding:
            self._discard(len(data))
        elif self._held:
            self._hold(self._held[self._held_from :] + data, 0)
        elif not self._begin_known(data):
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
        self._in_message = True
        self.idle_since = None
        self.waits_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Start the application, or wait for the end of a request that has arrived whole. From here
        on, the request's own deadline applies."""
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
        keep_alive = not self.is_last and version != "1.0" and parser.should_keep_alive()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            is_plain = not self.expect_100_continue and not self.flow.write_paused
            if self._is_whole and is_plain and self.begin is not None:
                on_response = self.on_response_complete
                self._whole = Whole(self._output, self._answer_head, keep_alive, on_response)
            else:
                self._answering = self._new_cycle(keep_alive)
                self._start_asgi_task(self._answering, self.app)
        elif len(self.pipeline) < _MOST_BEHIND:
            self.pipeline.appendleft((self._new_cycle(keep_alive), self.app))
        else:
            message = "too many requests follow a chunked body"
            raise httptools.HttpParserError(message)

    def _new_cycle(self, keep_alive: bool) -> Cycle:
        self.cycle = cycle = Cycle(
            scope=self.scope,
            transport=self._output,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body_left = self.body_left
        return cycle

    def _begin_known(self, data: bytes) -> bool:
        """Let the edge answer a request with a known head. Return False for any other bytes, which
        must then be parsed."""
        cycle = self.cycle
        is_between = not self._in_message and not self._head_bytes
        if not is_between or self.begin is None or self.is_last or self.flow.write_paused:
            return False
        if cycle is not None and not cycle.response_complete:
            return False
        found = self._known_heads.find(data)
        if found is None:
            return False
        known, body = found
        self.waits_since = None
        self.expect_100_continue = False
        scope: Any = {**known.scope, "client": self.client, "server": self.server}
        scope["scheme"], scope["state"] = self.scheme, self.app_state.copy()
        self.scope = scope
        on_response = self.on_response_complete
        self._begin(Whole(self._output, self._answer_head, known.keep_alive, on_response), body)
        return True

    def _begin(self, whole: Whole, body: bytes) -> bool:
        """Let the edge answer a request that has arrived in full. Return False if that needs a
        task, which is then started."""
        self.cycle = self._answering = cast("Cycle", whole)
        self._answer_head.renew(self.server_state.default_headers)
        scope: Any = self.scope
        if self.begin is not None and self.begin(scope, body, whole.reply):
            return True
        length = str(len(body)).encode()  # a known head has that of its first request
        scope["headers"] = [
            (name, length if name == b"content-length" else value)
            for name, value in scope["headers"]
        ]
        self._answering = cycle = self._new_cycle(whole.keep_alive)
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        self._start_asgi_task(cycle, self.app)
        return False

    def on_body(self, body: bytes) -> None:
        """Add a part of the body's content."""
        self._framing.content += len(body)
        if self._whole is not None:
            self._whole_body += body
            return
        cycle = self.cycle
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
        self._in_message = False
        self._in_head = True
        self._head_bytes = 0
        whole = self._whole
        if whole is not None:
            body, self._whole, self._whole_body = self._whole_body, None, b""
            # The last answer on a connection closes it, whatever the head says.
            if self._begin(whole, body) and self._whole_data and not self.is_last:
                scope: Any = self.scope
                self._known_heads.remember(self._whole_data, scope, whole.keep_alive)
            return
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:  # its body came after the answer
            self.waits_since = None
            self.idle_since = self.loop.time()
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
                self.idle_since = self.loop.time()

    def body_left(self) -> int | None:
        """Return the bytes of the newest request's body still to arrive; None if unknown."""
        for name, value in self.cycle.scope["headers"]:
            if name == b"content-length":
                return int(value) - self._framing.content
        return None

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
                is_start = not self._head_bytes and begins == 0
                self._head_bytes += head_ends - begins
                if self._head_bytes > MAX_HEAD_BYTES:
                    detail = f"a request's head may have at most {MAX_HEAD_BYTES:,} bytes"
                    self.refuse(Kind.HEAD_TOO_LARGE, detail)
                    return
                length, arrived = content_length(data, begins, head_ends), len(data) - head_ends
                if arrived <= length:
                    position = len(data)  # include the body received so far, usually all of it
                self._is_whole = 0 < arrived == length
                self._whole_data = data if self._is_whole and is_start else b""
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
            and self.idle_since is None
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
        self._is_whole = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(without_upgrade(method, self.url, version, self.headers))
        except httptools.HttpParserError as error:
            self._refuse_unparsable(error)
