"""Ordinary clients: those that load the server, and those that notice when it slows down."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.chaos.trial import TrialRun
from bench.load.client import TIMEOUT_SECONDS, HttpClient
from bench.load.loops import open_loop
from bench.load.sent import Sent

USERS: Final = 32
"""Connections of :func:`traffic`."""


@contextlib.asynccontextmanager
async def traffic(run: TrialRun, users: int = USERS) -> AsyncIterator[None]:
    """Run ``users`` clients that ask as fast as they are answered, on connections they keep."""
    client = run.client()
    await client.open_connections(users)
    going = True

    async def user(number: int) -> None:
        while going:
            run.statuses[await client.send(number)] += 1
            number += users

    async with asyncio.TaskGroup() as tasks:
        for first in range(users):
            tasks.create_task(user(first))
        try:
            yield
        finally:
            going = False
    client.close()


async def ordinary(
    client: HttpClient, per_second: float, seconds: float, *, seed: int, statuses: Counter[int]
) -> NDArray[np.float64]:
    """Send at a steady rate, whatever else the server does.

    Returns:
        float64 (requests,): times in ms from the moment each was due. A request that is not
        answered with a 200 counts as long as the client would have waited, so that a service which
        refuses ordinary clients does not look fast.
    """

    async def send(number: int) -> int:
        status = await client.send(number)
        statuses[status] += 1
        return status

    return times_with_failures(await open_loop(send, per_second, seconds, seed=seed))


def times_with_failures(sent: Sent) -> NDArray[np.float64]:
    """Time of each request in ms; :data:`TIMEOUT_SECONDS` for one that failed."""
    times = (sent.done_s - sent.due_s) * 1e3
    return np.where(sent.succeeded, times, TIMEOUT_SECONDS * 1e3)


def percentile_ms(times: Sequence[NDArray[np.float64]], share: float) -> float:
    """Percentile over several windows; 0 where nothing was sent."""
    every = np.concatenate(times) if times else np.zeros(0)
    return float(np.percentile(every, share)) if every.size else 0.0


async def until(
    condition: Callable[[], bool], seconds: float, *, look_every: float = 0.05
) -> float | None:
    """Seconds until ``condition`` holds; None where it did not within ``seconds``."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while loop.time() - start < seconds:
        if await asyncio.to_thread(condition):
            return loop.time() - start
        await asyncio.sleep(look_every)
    return None
