"""Drive a server with requests: connect, run a loop, close.

    driver = Driver(HttpClient(server.url, "/classify", bodies), server.check_alive)
    driven = driver.closed(users=16, seconds=5.0)
    driven.sent.times_ms, driven.cpu_share

A coroutine that sends by itself takes only the connections:

    async with connected(client, users):
        await client.send(0)
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from bench.load.arrivals import Shape
from bench.load.loops import closed_loop, open_loop, run_timed
from bench.load.sent import Sent

OPEN_LOOP_CONNECTIONS: Final = 16
"""Made before an open loop starts, where nothing else is said."""


class Client(Protocol):
    """A sender of requests: :class:`bench.load.client.HttpClient`, or a test's fake."""

    async def send(self, number: int) -> int:
        """Send request ``number``; its HTTP status, 0 without an answer."""

    async def open_connections(self, count: int) -> None:
        """Make ``count`` connections ready.

        Raises:
            BenchError: nobody listens there.
        """

    def close(self) -> None:
        """Close all connections."""


C = TypeVar("C", bound=Client)
Run = Callable[[Coroutine[Any, Any, Sent]], tuple[Sent, float]]
"""Runs a loop on an event loop: its result, and CPU time of this process over wall time."""


@dataclass(frozen=True)
class Driven:
    """Result of one loop."""

    sent: Sent
    cpu_share: float
    """CPU time over wall time of the load generator: 1.0 is a whole core."""


@contextlib.asynccontextmanager
async def connected(client: C, connections: int) -> AsyncIterator[C]:
    """The client with ``connections`` ready, so that no measured request has to make one. They are
    closed at the end: connections cannot outlive their event loop.

    Raises:
        BenchError: nobody listens there.
    """
    try:
        await client.open_connections(connections)
        yield client
    finally:
        client.close()


class Driver:
    """Runs loops of requests over one client, each on an event loop and connections of its own.

    Args:
        client: sends the requests.
        check: called every half second; what it raises (the server died) ends the loop.
        run: runs the event loop: tests give one whose time is made up.
    """

    def __init__(
        self, client: Client, check: Callable[[], None] = lambda: None, run: Run = run_timed
    ) -> None:
        self._client = client
        self._check = check
        self._run = run

    def closed(self, users: int, seconds: float, *, requests_per_query: int = 1) -> Driven:
        """Closed loop: ``users`` callers, each with its next query on the last answer.

        Raises:
            BenchError: nobody listens there, or what ``check`` raises.
        """

        async def work() -> Sent:
            async with connected(self._client, users * requests_per_query) as client:
                return await closed_loop(
                    client.send,
                    users,
                    seconds,
                    requests_per_query=requests_per_query,
                    check=self._check,
                )

        return Driven(*self._run(work()))

    def open(
        self,
        rate_per_s: float,
        seconds: float,
        *,
        seed: int,
        shape: Shape = "poisson",
        connections: int = OPEN_LOOP_CONNECTIONS,
    ) -> Driven:
        """Open loop: requests are sent when due, however many answers are still out.

        Args:
            rate_per_s: requests due per second.
            seconds: how long they are due for.
            seed: of the arrivals.
            shape: of the arrivals.
            connections: made before the first request; more are made as they are needed.

        Raises:
            BenchError: nobody listens there, or what ``check`` raises.
        """

        async def work() -> Sent:
            async with connected(self._client, connections) as client:
                return await open_loop(
                    client.send, rate_per_s, seconds, seed=seed, shape=shape, check=self._check
                )

        return Driven(*self._run(work()))
