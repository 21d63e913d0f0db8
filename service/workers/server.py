"""One worker's server: uvicorn, with connections shared out evenly and bounded.

Several workers accept from one socket, and each takes one connection at a time, after any that has
fewer: otherwise the first to wake up takes nearly all. A worker has a bound on its connections, and
each connection bounds itself (:mod:`service.workers.connection`).
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from operator import itemgetter
from typing import Any, Final

import uvicorn

from service.problems import Kind, Problem
from service.settings import Settings
from service.workers.board import Field, Place
from service.workers.connection import Connection
from service.workers.cycle import last_answer
from service.workers.heads import MAX_HEAD_BYTES

logger = logging.getLogger(__name__)

_GIVE_WAY_SECONDS: Final = 0.001
_NO_MORE_FILES_SECONDS: Final = 0.1
_FAREWELL_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 1.0
_TURN_AWAY_SECONDS: Final = 1.0
_MOST_TURNED_AWAY: Final = 64
"""Connections above the bound that wait, for :data:`_TURN_AWAY_SECONDS`, until their client has
read why."""

_LATE_START_SECONDS: Final = 5.0
"""A worker that is not ready after this lets people in, if only to tell them why."""

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than proxies keep an unused connection to a server (nginx and Envoy 60 s, AWS's load
balancers 60 s): a server that closes first may do it while a request is on its way, and the proxy
answers 502."""

CIPHERS: Final = "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
"""What CPython's :mod:`ssl` allows by default."""
_BENTOML_CIPHERS: Final = "TLSv1"
"""BentoML's default. Modern TLS 1.2 clients share no cipher with it."""

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
        """Read the options of BentoML's worker command.

        Args:
            options: those that stand on the command line; its defaults are not ours.
            settings: for what is not there.
        """
        given = {name: value for name, value in options.items() if value is not None}
        ssl = {name: value for name, value in given.items() if name.startswith("ssl_")}
        if ssl.get("ssl_ciphers", _BENTOML_CIPHERS) == _BENTOML_CIPHERS:
            ssl["ssl_ciphers"] = CIPHERS
        return cls(
            descriptor=given["fd"],
            keep_alive_seconds=given.get("timeout_keep_alive", KEEP_ALIVE_SECONDS),
            drain_seconds=given.get("timeout_graceful_shutdown", settings.drain_seconds),
            ssl=ssl,
        )


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
        self._turned_away: set[socket.socket] = set()
        self._began = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application; connections are let in by :meth:`on_tick`."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        loop.add_reader(self._lifeline, self._on_supervisor_exit)
        self._check_connections()
        if self._reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            if self._place.missed_reload:  # while the signal was still ignored
                self._reload()

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
        if mine >= self._settings.max_connections and not self._close_idle_connection():
            self._turn_away(connection)
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(
            loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self.config.ssl,
                ssl_handshake_timeout=self._settings.header_seconds if self.config.ssl else None,
            )
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
        try:
            if self.config.ssl is None:
                connection.send(last_answer(problem))
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()  # the client has gone already
            return
        # Closed at once, with the request unread, it would be reset, and the answer lost.
        if len(self._turned_away) >= _MOST_TURNED_AWAY or self.config.ssl is not None:
            connection.close()
            return
        self._turned_away.add(connection)
        asyncio.get_running_loop().call_later(_TURN_AWAY_SECONDS, self._drop, connection)

    def _drop(self, connection: socket.socket) -> None:
        self._turned_away.discard(connection)
        with connection, suppress(OSError):
            connection.recv(MAX_HEAD_BYTES)

    def _close_idle_connection(self) -> bool:
        """Make room by closing the connection that has been unused for longest, if there is one."""
        idle = [
            (connection.timeout_keep_alive_task.when(), connection)
            for connection in self.server_state.connections
            if isinstance(connection, Connection) and connection.timeout_keep_alive_task is not None
        ]
        if not idle:
            return False
        min(idle, key=itemgetter(0))[1].transport.close()
        return True

    def _protocol(self) -> Connection:
        return Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _check_connections(self) -> None:
        """Once a second, also while the worker ends, when there are no more ticks."""
        loop = asyncio.get_running_loop()
        loop.call_later(_CHECK_SECONDS, self._check_connections)
        now, patience = loop.time(), self._settings.header_seconds
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.check(now, patience)

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
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=launch.keep_alive_seconds,
        timeout_graceful_shutdown=ceil(launch.drain_seconds),
        **launch.ssl,
    )
    listener = socket.socket(fileno=os.dup(launch.descriptor))
    listener.setblocking(False)
    server = WorkerServer(config, listener, settings, place, is_fit, lifeline, reload)
    server.run()


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
