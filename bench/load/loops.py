"""Open and closed request loops on asyncio, the second load generator besides Locust.

Time comes from the event loop, so tests can supply one with simulated time. In the open loop, a
request is due at a fixed time and its latency counts from then. A late generator makes the server
look worse, never better (coordinated omission: G. Tene, "How NOT to Measure Latency").
"""

import asyncio
import errno
import os
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import numpy as np

from bench.load.arrivals import Shape, arrivals_s
from bench.load.sent import OK, Sent

Send = Callable[[int], Awaitable[int]]
"""Function that sends request N and returns its status, 0 without a response."""

_CHECK_EVERY_SECONDS: Final = 0.5
_MOST_DESCRIPTORS: Final = 1_024
"""Value of FD_SETSIZE, which the C library fixes and Python does not expose."""
T = TypeVar("T")


class _Log:
    def __init__(self) -> None:
        self.entries: list[tuple[float, float, float, int]] = []

    def sent(self) -> Sent:
        rows = np.array(sorted(self.entries), np.float64).reshape(-1, 4)
        return Sent(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3].astype(np.int16))


async def open_loop(
    send: Send,
    rate_per_s: float,
    seconds: float,
    *,
    seed: int,
    shape: Shape = "poisson",
    check: Callable[[], None] = lambda: None,
) -> Sent:
    """Send each request when it is due, and return when all responses have arrived.

    Args:
        check: called every half second; an exception from it ends the run.
    """
    loop, log = asyncio.get_running_loop(), _Log()
    start = loop.time()

    async def one(number: int, due: float) -> None:
        sent = loop.time() - start
        status = await send(number)
        log.entries.append((due, sent, loop.time() - start, status))

    async def dispatch() -> None:
        due_times = arrivals_s(rate_per_s, seconds, seed=seed, shape=shape).tolist()
        async with asyncio.TaskGroup() as tasks:
            for number, due in enumerate(due_times):
                # Yield even when late; otherwise nothing is sent until all due requests are tasks.
                await asyncio.sleep(max(0.0, start + due - loop.time()))
                tasks.create_task(one(number, due))

    await _checked(dispatch(), check)
    return log.sent()


async def closed_loop(
    send: Send,
    users: int,
    seconds: float,
    *,
    requests_per_query: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Sent:
    """Run ``users`` callers, each sending its next query after the last response, for ``seconds``.

    A query of several requests sends them together and ends with the last response.
    """
    loop, log = asyncio.get_running_loop(), _Log()
    start = loop.time()

    async def user(first: int) -> None:
        number = first
        while (sent := loop.time() - start) < seconds:
            if requests_per_query == 1:
                status = await send(number)
            else:
                first_number = number * requests_per_query
                parts = (send(first_number + part) for part in range(requests_per_query))
                answers = await asyncio.gather(*parts)
                status = next((answer for answer in answers if answer != OK), OK)
            log.entries.append((sent, sent, loop.time() - start, status))
            number += users

    async def all_users() -> None:
        async with asyncio.TaskGroup() as tasks:
            for first in range(users):
                tasks.create_task(user(first))

    await _checked(all_users(), check)
    return log.sent()


async def _checked(work: Coroutine[Any, Any, None], check: Callable[[], None]) -> None:
    """Run ``work`` until it ends or ``check`` raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_CHECK_EVERY_SECONDS)
            check()
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


class _ExactSelector(selectors.SelectSelector):
    """Selector that refuses a descriptor which ``select`` cannot watch.

    The standard one accepts it and then fails at every wait; the event loop could not even cancel
    its tasks.
    """

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if descriptor >= _MOST_DESCRIPTORS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().register(fileobj, events, data)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop with exact timers.

    The timers of epoll, asyncio's default, wait whole milliseconds, and a request sent late would
    count against the server.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_ExactSelector())) as runner:
        return runner.run(work)


def run_timed(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run a coroutine; return its result and CPU time of this process over wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    value = run(work)
    return value, (time.process_time() - cpu) / max(time.perf_counter() - wall, 1e-9)
