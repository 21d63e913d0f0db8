"""One worker's server: uvicorn, with connections shared out evenly and bounded.

What uvicorn leaves open is closed here. Several workers accept from one socket, and each takes one
connection at a time, after any that has fewer: else the first to wake up takes nearly all. A
request's head has a bound on its size and on its time, and a worker one on its connections.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import MEDIA_TYPE, Kind, Problem
from service.settings import Settings
from service.workers.board import Field, Place

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 64 * 1024

_GIVE_WAY_SECONDS: Final = 0.001
_NO_MORE_FILES_SECONDS: Final = 0.1
_FAREWELL_SECONDS: Final = 1.0
_LATE_START_SECONDS: Final = 5.0
"""A worker that is not ready after this lets people in, if only to tell them why."""

_ORPHAN_SECONDS: Final = 60.0
"""BentoML takes about ten to replace a killed supervisor of ours."""


@dataclass(frozen=True)
class Launch:
    """What BentoML told this process on its command line."""

    descriptor: int
    """Of the listening socket."""
    keep_alive_seconds: int
    drain_seconds: float
    """Its own ``--timeout-graceful-shutdown`` where that was given, else the setting."""
    ssl: Mapping[str, Any]

    @classmethod
    def from_options(cls, options: Mapping[str, Any], settings: Settings) -> "Launch":
        """From the options of BentoML's worker command."""
        given = {name: value for name, value in options.items() if value is not None}
        return cls(
            descriptor=given["fd"],
            keep_alive_seconds=given.get("timeout_keep_alive", 5),
            drain_seconds=given.get("timeout_graceful_shutdown", settings.drain_seconds),
            ssl={name: value for name, value in given.items() if name.startswith("ssl_")},
        )


class Connection(HttpToolsProtocol):
    """A connection that knows since when it waits for the rest of a request's head."""

    place: Place
    """Of this worker; set by :func:`run_worker`, as is the next."""
    count: Callable[[Kind], None]
    """Told of each refusal that no application sees."""

    waits_since: float | None = None
    """On the event loop's clock; None while a request is answered or the connection is idle."""
    leaves = False
    """Whether the next answer is the last on this connection."""
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects and says nothing has the time of a head."""
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """One fewer."""
        super().connection_lost(exc)
        self.place.put(Field.CONNECTIONS, len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Pass it on, and bound the head that is not complete then."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"at most {MAX_HEAD_BYTES:,} bytes are read of a request line and headers"
                self.refuse(Kind.HEAD_TOO_LARGE, detail)
        elif (
            self.waits_since is None
            and self.timeout_keep_alive_task is None
            and (self.cycle is None or self.cycle.response_complete)
        ):
            # uvicorn has stopped its timer for data that may be no request: empty lines, or the
            # rest of a body that was refused.
            self.waits_since = self.loop.time()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.waits_since = self.loop.time()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """From here on, the request has its own deadline."""
        self.waits_since = None
        self._in_head = False
        super().on_headers_complete()
        if self.leaves:
            self.cycle.keep_alive = False

    def refuse(self, kind: Kind, detail: str) -> None:
        """Answer what is no request yet, and end the connection."""
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_last_answer(Problem(kind, detail)))
                self.count(kind)
            self.transport.close()
        self.waits_since = None


class WorkerServer(uvicorn.Server):
    """Args:
    config: uvicorn's.
    listener: what all workers accept from.
    settings: limits.
    place: this worker's, on the board.
    is_fit: whether all models can answer.
    lifeline: ends when the supervisor does.
    reload: what SIGHUP does; None: nothing.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        settings: Settings,
        place: Place,
        is_fit: Callable[[], bool],
        lifeline: int,
        reload: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._settings = settings
        self._place = place
        self._is_fit = is_fit
        self._lifeline = lifeline
        self._reload = reload
        self._grandparent = _parent_of(os.getppid())
        self._orphaned: float | None = None
        self._accepting = False
        self._gave_way = False
        self._opening: set[asyncio.Task[Any]] = set()
        self._began = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application; connections are let in by :meth:`on_tick`."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        loop.add_reader(self._lifeline, self._on_supervisor_exit)
        if self._reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more; finish what has been accepted."""
        self._stop_accepting()
        self._place.set_ready(False)
        # A client that keeps its connection may be sending at this moment: closed under it, that
        # request would be lost. So each is told with its next answer, and has a moment to ask.
        loop = asyncio.get_running_loop()
        until = loop.time() + min(_FAREWELL_SECONDS, self.config.timeout_graceful_shutdown or 0)
        while self.server_state.connections and loop.time() < until and not self.force_exit:
            for connection in self.server_state.connections:
                if isinstance(connection, Connection):
                    connection.leaves = True
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell how this worker is, and what follows from it."""
        self._place.beat()
        fit = self._is_fit()
        self._place.set_ready(fit and not self.should_exit)
        now = asyncio.get_running_loop().time()
        if not self._accepting and self._should_accept(now, fit):
            self._start_accepting()
        if counter % 10 == 0:
            self._end_late_heads(now - self._settings.header_seconds)
            self._share_out()
            if self._orphaned is not None:
                self._end_if_forgotten(now)
        return await super().on_tick(counter)

    def _should_accept(self, now: float, fit: bool) -> bool:
        """A worker that replaces another waits until it can answer: until then the others do, or
        the kernel keeps the connections. The first of all says from the start how far it is."""
        if fit:
            return True
        if self._place.board.ready:
            return False
        return not self._place.board.was_ready or now > self._began + _LATE_START_SECONDS

    def _start_accepting(self) -> None:
        self._accepting = True
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._listener)

    def _pause_accepting(self, seconds: float) -> None:
        self._stop_accepting()
        asyncio.get_running_loop().call_later(seconds, self._accept_again)

    def _accept_again(self) -> None:
        if not self.should_exit and not self._accepting:
            self._start_accepting()

    def _accept(self) -> None:
        """Take one connection, unless a worker with fewer is there to do it."""
        mine = len(self.server_state.connections) + len(self._opening)
        if not self._gave_way:
            fewest = self._place.fewest_connections_of_others()
            if fewest is not None and mine > fewest:
                self._gave_way = True  # once: the other may be busy
                self._pause_accepting(_GIVE_WAY_SECONDS)
                return
        self._gave_way = False
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.error("cannot accept a connection: %s", error.strerror)
            self._pause_accepting(_NO_MORE_FILES_SECONDS)
            return
        connection.setblocking(False)
        if mine >= self._settings.max_connections:
            self._turn_away(connection)
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(
            loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[Any]") -> None:
        self._opening.discard(task)
        if not task.cancelled() and task.exception() is not None:  # a TLS handshake that failed
            logger.info("a connection was not made: %s", type(task.exception()).__name__)

    def _turn_away(self, connection: socket.socket) -> None:
        Connection.count(Kind.TOO_MANY_CONNECTIONS)
        detail = f"{self._settings.max_connections} connections are open; try again in a second"
        problem = Problem(Kind.TOO_MANY_CONNECTIONS, detail, headers=((b"retry-after", b"1"),))
        with connection:
            try:
                if self.config.ssl is None:
                    connection.send(_last_answer(problem))
            except OSError:
                pass  # it has gone already

    def _protocol(self) -> Connection:
        return Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _end_late_heads(self, limit: float) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                since = connection.waits_since
                if since is not None and since < limit:
                    seconds = self._settings.header_seconds
                    detail = f"no request was complete up to its body after {seconds:g} seconds"
                    connection.refuse(Kind.HEAD_TIMEOUT, detail)

    def _share_out(self) -> None:
        """Send some clients elsewhere when this worker has more than its share, as after the
        death of another: each is told with its next answer, so that none loses a request."""
        board = self._place.board
        ready = max(1, board.ready)
        everyone = sum(board.get(row, Field.CONNECTIONS) for row in board.rows())
        share = ceil(everyone / ready)
        mine = list(self.server_state.connections)
        if len(mine) <= share * 1.1 + 1:
            return
        for connection in mine[: len(mine) - share]:
            if isinstance(connection, Connection):
                connection.leaves = True

    def _on_supervisor_exit(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._lifeline)
        self._orphaned = loop.time()
        logger.error("the supervisor of this worker is gone; it answers until a new one is there")

    def _end_if_forgotten(self, now: float) -> None:
        long = self._orphaned is not None and now > self._orphaned + _ORPHAN_SECONDS
        if long or _parent_of(self._grandparent) is None:
            self.should_exit = True


def run_worker(
    application: Any,
    launch: Launch,
    settings: Settings,
    place: Place,
    is_fit: Callable[[], bool],
    lifeline: int,
    reload: Callable[[], None] | None = None,
    count: Callable[[Kind], None] = lambda kind: None,
) -> None:
    """Serve ``application`` until told to end.

    Args:
        application: what answers.
        launch: what BentoML told.
        settings: limits.
        place: of this worker, on the board.
        is_fit: whether all models can answer.
        lifeline: ends when the supervisor does.
        reload: what SIGHUP does; None: nothing.
        count: told of each refusal that the application does not see.
    """
    _allow_connections(settings.max_connections)
    Connection.place = place
    Connection.count = staticmethod(count)
    # BentoML's own choices for its workers, but for what is said here.
    config = uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.rate_limit > 0,
        timeout_keep_alive=launch.keep_alive_seconds,
        timeout_graceful_shutdown=ceil(launch.drain_seconds),
        **launch.ssl,
    )
    listener = socket.socket(fileno=os.dup(launch.descriptor))
    listener.setblocking(False)
    server = WorkerServer(config, listener, settings, place, is_fit, lifeline, reload)
    server.run()


def _last_answer(problem: Problem) -> bytes:
    body = problem.body()
    headers = (
        (b"content-type", MEDIA_TYPE),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *problem.headers,
    )
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    reason = problem.kind.title.encode()
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (problem.kind.status, reason, lines, body)


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files, which is often 1,024, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parent_of(process: int | None) -> int | None:
    """The parent's id; None for a process that has ended."""
    if process is None:
        return None
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 — no need of a Path here
            fields = file.read().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])
