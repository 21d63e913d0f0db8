"""One worker's server: uvicorn, with connections limited and spread evenly over the workers.

All workers accept from one socket. Each accepts one connection at a time, and lets workers with
fewer connections go first; otherwise the first worker to wake up would take nearly all. The number
of a worker's connections is limited, and each connection has its own limits
(:mod:`service.workers.connection`).
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
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from service.edge import Edge
from service.problems import Kind, Problem
from service.settings import Settings
from service.workers.board import Field, Place
from service.workers.connection import Connection
from service.workers.cycle import last_answer
from service.workers.heads import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from service.rpc.server import RpcServer

logger = logging.getLogger(__name__)

_YIELD_SECONDS: Final = 0.001
_NO_MORE_FILES_SECONDS: Final = 0.1
_LAST_ANSWER_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 1.0
_MOST_REFUSED: Final = 64
"""Maximum number of refused connections that stay open, for :data:`_REFUSED_SECONDS`, so that their
clients can read the reason."""

_LATE_START_SECONDS: Final = 5.0
"""Time after which a worker that is not ready accepts connections anyway, to report the reason."""

KEEP_ALIVE_SECONDS: Final = 75
"""Time that an idle connection stays open. Longer than in proxies (nginx and Envoy 60 s, AWS's load
balancers 60 s): a server that closes first may do so while a request is on its way, and the proxy
then answers 502."""

CIPHERS: Final = "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
"""Default ciphers of CPython's :mod:`ssl`."""
_BENTOML_CIPHERS: Final = "TLSv1"
"""BentoML's default ciphers, none of which modern TLS 1.2 clients support."""

_ORPHAN_SECONDS: Final = 60.0
"""Time that a worker keeps serving without a supervisor. BentoML replaces a killed supervisor
within about ten seconds."""


@dataclass(frozen=True)
class Launch:
    """Options from BentoML's command line for this process."""

    descriptor: int
    """File descriptor of the listening socket."""
    keep_alive_seconds: int
    drain_seconds: float
    """Value of BentoML's ``--timeout-graceful-shutdown`` if given, else of our setting."""
    ssl: Mapping[str, Any]

    @classmethod
    def from_options(cls, options: Mapping[str, Any], settings: Settings) -> "Launch":
        """Read the options of BentoML's worker command.

        Args:
            options: options given on the command line, without BentoML's defaults.
            settings: our settings, used for options that were not given.
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
    """The uvicorn server of one worker.

    Args:
        config: uvicorn's configuration.
        listener: the socket from which all workers accept connections.
        settings: the server's settings, for limits.
        place: this worker's place on the board.
        is_fit: returns whether all models are ready.
        lifeline: descriptor that reads end of file when the supervisor is gone.
        reload: handler of SIGHUP; None: the signal has no effect.
        rpc: the worker's gRPC server, which starts and stops with it; None: there is none.
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
        rpc: "RpcServer | None" = None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._settings = settings
        self._place = place
        self._is_fit = is_fit
        self._lifeline = lifeline
        self._reload = reload
        self._rpc = rpc
        self._grandparent = _parent_of(os.getppid())
        self._orphaned: float | None = None
        self._accepting = False
        self._has_yielded = False
        self._opening: set[asyncio.Task[Any]] = set()
        self._refused: set[socket.socket] = set()
        self._began = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application. :meth:`on_tick` starts accepting connections."""
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
        """Stop accepting connections and finish the accepted requests."""
        self._stop_accepting()
        self._place.set_ready(False)
        drain = self.config.timeout_graceful_shutdown or 0
        calls = asyncio.create_task(self._rpc.stop(drain)) if self._rpc is not None else None
        await self._finish_connections()
        if calls is not None:
            await calls
        await super().shutdown(sockets)

    async def _finish_connections(self) -> None:
        """Give the clients of open connections a moment to send a last request."""
        # A client with an open connection may be sending a request, which closing would lose. So
        # the next answer on each connection announces its end, and clients get a moment to send.
        loop = asyncio.get_running_loop()
        until = loop.time() + min(_LAST_ANSWER_SECONDS, self.config.timeout_graceful_shutdown or 0)
        while self.server_state.connections and loop.time() < until and not self.force_exit:
            for connection in self.server_state.connections:
                if isinstance(connection, Connection):
                    connection.is_last = True
            await asyncio.sleep(0.05)

    async def on_tick(self, counter: int) -> bool:
        """Report this worker's state on the board, and act on it. Called ten times a second."""
        self._place.beat()
        fit = self._is_fit()
        self._place.set_ready(fit and not self.should_exit)
        now = asyncio.get_running_loop().time()
        if not self._accepting and self._should_accept(now, fit):
            self._start_accepting()
            if self._rpc is not None:
                await self._rpc.start()
        if counter % 10 == 0:
            self._rebalance()
            if self._orphaned is not None:
                self._end_if_orphaned(now)
        return await super().on_tick(counter)

    def _should_accept(self, now: float, fit: bool) -> bool:
        """Return whether to accept connections now. A replacement worker waits until it is ready;
        until then other workers serve, or the kernel queues the connections. The first workers
        accept at once, to report their progress."""
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
        """Accept one connection, unless a worker with fewer connections can accept it."""
        mine = len(self.server_state.connections) + len(self._opening)
        if not self._has_yielded:
            fewest = self._place.fewest_connections_of_others()
            if fewest is not None and mine > fewest:
                self._has_yielded = True  # only once, because the other may be busy
                self._pause_accepting(_YIELD_SECONDS)
                return
        self._has_yielded = False
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
            self._refuse(connection)
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
        if not task.cancelled() and task.exception() is not None:  # a failed TLS handshake
            logger.info("a connection failed: %s", type(task.exception()).__name__)

    def _refuse(self, connection: socket.socket) -> None:
        Connection.count(Kind.TOO_MANY_CONNECTIONS)
        detail = f"{self._settings.max_connections} connections are open; try again in a second"
        problem = Problem(Kind.TOO_MANY_CONNECTIONS, detail, headers=((b"retry-after", b"1"),))
        try:
            if self.config.ssl is None:
                connection.send(last_answer(problem))
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()  # the client has disconnected already
            return
        # Closing now, with the request unread, would reset the connection and lose the answer.
        if len(self._refused) >= _MOST_REFUSED or self.config.ssl is not None:
            connection.close()
            return
        self._refused.add(connection)
        asyncio.get_running_loop().call_later(_REFUSED_SECONDS, self._drop, connection)

    def _drop(self, connection: socket.socket) -> None:
        self._refused.discard(connection)
        with connection, suppress(OSError):
            connection.recv(MAX_HEAD_BYTES)

    def _close_idle_connection(self) -> bool:
        """Close the connection that has been idle longest. Return whether there was one."""
        idle = [
            (connection.idle_since, connection)
            for connection in self.server_state.connections
            if isinstance(connection, Connection) and connection.idle_since is not None
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
        """Check every connection once a second, even during shutdown, when ticks have stopped."""
        loop = asyncio.get_running_loop()
        loop.call_later(_CHECK_SECONDS, self._check_connections)
        now, patience = loop.time(), self._settings.header_seconds
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.check(now, patience)

    def _rebalance(self) -> None:
        """Close surplus connections if this worker has more than its share, for example after
        another worker died. Each closes after its next answer, so that no request is lost."""
        board = self._place.board
        ready = max(1, board.ready)
        everyone = sum(board.get(row, Field.CONNECTIONS) for row in board.rows())
        share = ceil(everyone / ready)
        mine = list(self.server_state.connections)
        if len(mine) <= share * 1.1 + 1:
            return
        for connection in mine[: len(mine) - share]:
            if isinstance(connection, Connection):
                connection.is_last = True

    def _on_supervisor_exit(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._lifeline)
        self._orphaned = loop.time()
        logger.error("this worker's supervisor is gone; it serves until a new one replaces it")

    def _end_if_orphaned(self, now: float) -> None:
        long = self._orphaned is not None and now > self._orphaned + _ORPHAN_SECONDS
        if long or _parent_of(self._grandparent) is None:
            self.should_exit = True


def run_worker(
    edge: Edge,
    launch: Launch,
    settings: Settings,
    place: Place,
    lifeline: int,
    rpc_address: str | None = None,
) -> None:
    """Serve until the worker is stopped.

    Args:
        edge: the ASGI application.
        launch: BentoML's options for this process.
        settings: the server's settings, for limits.
        place: this worker's place on the board.
        lifeline: descriptor that reads end of file when the supervisor is gone.
        rpc_address: address to serve gRPC on, as gRPC writes it; None: no gRPC.
    """
    rpc = None
    if rpc_address is not None:
        from service.rpc.server import RpcServer  # its imports are an extra

        rpc = RpcServer(edge.backend, rpc_address, launch.ssl)
    _allow_connections(settings.max_connections * (1 if rpc is None else 2))
    Connection.place = place
    Connection.count = staticmethod(edge.count_refusal)
    Connection.begin = edge.begin
    # As BentoML configures its workers, except for the options given here.
    config = uvicorn.Config(
        edge,
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
    server = WorkerServer(
        config, listener, settings, place, edge.backend.is_fit, lifeline, edge.reload, rpc
    )
    server.run()


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files, often 1,024, to what ``count`` connections need,
    or as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _parent_of(process: int | None) -> int | None:
    """Return a process's parent id; None if the process has ended."""
    if process is None:
        return None
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123 — a Path is not needed
            fields = file.read().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])
