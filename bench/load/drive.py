"""Drive a server with requests: connect, run a loop, close.

    driver = Driver(HttpClient(server.url, "/classify", bodies), server.check_alive)
    driven = driver.closed(users=16, seconds=5.0)
    driven.sent.times_ms, driven.cpu_share

A coroutine that does its own sending uses only the connections:

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
"""Default number of connections opened before an open loop starts."""


class Client(Protocol):
    """Sender of requests: :class:`bench.load.client.HttpClient`, or a fake in tests."""

    async def send(self, number: int) -> int:
        """Send request ``number`` and return its HTTP status, 0 without a response."""

    async def open_connections(self, count: int) -> None:
        """Open ``count`` connections in advance.

        Raises:
            BenchError: nothing listens at the URL.
        """

    def close(self) -> None:
        """Close all connections."""


C = TypeVar("C", bound=Client)
Run = Callable[[Coroutine[Any, Any, Sent]], tuple[Sent, float]]
"""Function that runs a loop and returns its result and CPU time of this process over wall time."""


@dataclass(frozen=True)
class Driven:
    """Result of one loop."""

    sent: Sent
    cpu_share: float
    """CPU time over wall time of the load generator; 1.0 is a whole core."""


@contextlib.asynccontextmanager
async def connected(client: C, connections: int) -> AsyncIterator[C]:
    """Open ``connections`` in advance, so that no measured request has to, and yield the client.

    They are closed at the end, because connections cannot outlive their event loop.

    Raises:
        BenchError: nothing listens at the URL.
    """
    try:
        await client.open_connections(connections)
        yield client
    finally:
        client.close()


class Driver:
    """Runs load loops over one client, each with its own event loop and connections.

    Args:
        check: called every half second; an exception from it (the server died) ends the loop.
        run: runs the event loop; tests replace it with one on simulated time.
    """

    def __init__(
        self, client: Client, check: Callable[[], None] = lambda: None, run: Run = run_timed
    ) -> None:
        self._client = client
        self._check = check
        self._run = run

    def closed(self, users: int, seconds: float, *, requests_per_query: int = 1) -> Driven:
        """Run a closed loop: each of ``users`` callers sends its next query after the last
        response.

        Raises:
            BenchError: nothing listens at the URL, or ``check`` raised it.
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
        """Run an open loop: requests are sent when due, however many responses are outstanding.

        Args:
            connections: connections opened before the first request; more are opened as needed.

        Raises:
            BenchError: nothing listens at the URL, or ``check`` raised it.
        """

        async def work() -> Sent:
            async with connected(self._client, connections) as client:
                return await open_loop(
                    client.send, rate_per_s, seconds, seed=seed, shape=shape, check=self._check
                )

        return Driven(*self._run(work()))
