"""One thread whose calls are admitted by what they will cost, and taken in turn between clients.

A queue of requests counts an image of 46 bytes that takes a second like any other, and whoever
sends most gets most. Here a call has a cost in seconds, known before it is queued:

- what waits for the thread is bounded in calls and in seconds;
- the thread takes next a call of the client that has had least of it (start-time fair queueing,
  Goyal et al. 1996), so that a client with one photo waits for one photo of each other client;
- a call that does not fit takes the place of the newest of the client that has most waiting, if
  that is more than its own client would have.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import Any, TypeVar

from service.batcher import past_deadline
from service.problems import Kind, Problem, try_later

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Call:
    client: str
    seconds: float
    run: Callable[[], Any] | None
    """None once it has been taken or given up."""
    outcome: "Future[Any]"


@dataclass(eq=False, slots=True)
class _Client:
    had: float
    """Seconds of the thread, on the clock of :attr:`FairThread._virtual`."""
    waiting: deque[_Call] = field(default_factory=deque)
    seconds: float = 0.0
    """Of those that wait."""


class FairThread:
    """One thread, and the calls that wait for it.

    Args:
        name: of the thread.
        most_calls: the most that wait or run.
        most_seconds: the most that those which wait may take together; a call that would have to
            wait for nobody else's is admitted whatever its cost.
        niceness: how much less than the rest of the process it counts with the scheduler.
    """

    def __init__(
        self, name: str, most_calls: int, most_seconds: float = inf, niceness: int = 0
    ) -> None:
        self._most_calls = most_calls
        self._most_seconds = most_seconds
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=_give_way, initargs=(niceness,)
        )
        self._lock = threading.Lock()
        self._clients: dict[str, _Client] = {}
        """Those that wait, and those that have had more than others lately."""
        self._virtual = 0.0
        """What the client that was served last had had: where a newcomer begins."""
        self._calls = 0
        self._seconds = 0.0
        self._running_since: float | None = None

    async def run(
        self,
        deadline: float,
        client: str,
        seconds: float,
        function: Callable[..., T],
        *arguments: Any,
    ) -> T:
        """Return ``function(*arguments)``, called in the thread. What has not started by the
        deadline never does.

        Args:
            deadline: on the event loop's clock.
            client: who asks; each gets the same share of the thread.
            seconds: about what the call will take of it.
            function: it and its arguments are forgotten when it has run.
            *arguments: of the call.

        Raises:
            Problem: 503, there is no place in the queue; 504, the deadline has passed.
        """
        call = _Call(client, seconds, partial(function, *arguments), Future())
        self._admit(call)
        self._executor.submit(self._run_next)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.wrap_future(call.outcome)
        except TimeoutError:
            raise past_deadline() from None
        finally:
            self._give_up(call)
            # An exception knows this frame; were it to know the exception, neither would go, nor
            # would the request's body, before the next full garbage collection.
            del call

    def busy_seconds(self) -> float:
        """How long the call that is running now has been running; 0 where there is none."""
        since = self._running_since
        return 0.0 if since is None else monotonic() - since

    def stop(self) -> None:
        """Drop what has not started, and let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _admit(self, call: _Call) -> None:
        dropped = []
        with self._lock:
            own = self._clients.get(call.client)
            waiting = own.seconds if own else 0.0
            while not self._fits(call):
                most = max(self._clients.values(), key=lambda one: one.seconds, default=None)
                if most is None or not most.waiting or most.seconds <= waiting + call.seconds:
                    break
                dropped.append(self._remove(most, most.waiting[-1]))
            is_admitted = self._fits(call)
            if is_admitted:
                if own is None:
                    own = self._clients.setdefault(call.client, _Client(self._virtual))
                elif not own.waiting:
                    own.had = max(own.had, self._virtual)
                own.waiting.append(call)
                own.seconds += call.seconds
                self._seconds += call.seconds
                self._calls += 1
        for one in dropped:
            one.outcome.set_exception(self._refusal())
        if not is_admitted:
            raise self._refusal()

    def _fits(self, call: _Call) -> bool:
        if self._calls >= self._most_calls:
            return False
        return self._seconds == 0 or self._seconds + call.seconds <= self._most_seconds

    def _refusal(self) -> Problem:
        detail = (
            f"{self._calls} requests that take about {self._seconds:.1f} seconds are waiting "
            "already; try again in a second"
        )
        return try_later(Kind.QUEUE_FULL, detail)

    def _remove(self, client: _Client, call: _Call) -> _Call:
        """Take a call that waits out of the queue, with its place."""
        client.waiting.remove(call)
        client.seconds = client.seconds - call.seconds if client.waiting else 0.0
        self._calls -= 1
        self._seconds = self._seconds - call.seconds if self._any_waiting() else 0.0
        call.run = None
        if not client.waiting and client.had <= self._virtual:
            self._clients.pop(call.client, None)
        return call

    def _any_waiting(self) -> bool:
        return any(one.waiting for one in self._clients.values())

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if call.run is not None:
                self._remove(self._clients[call.client], call)

    def _run_next(self) -> None:
        with self._lock:
            waiting = [one for one in self._clients.values() if one.waiting]
            if not waiting:  # whoever asked for this turn has given up
                return
            client = min(waiting, key=lambda one: one.had)
            call = client.waiting[0]
            run = call.run
            self._virtual = client.had
            client.had += call.seconds
            self._remove(client, call)
            self._calls += 1  # it keeps its place until it has run
            self._forget_the_idle()
            self._running_since = monotonic()
        try:
            if run is not None and call.outcome.set_running_or_notify_cancel():
                _fill(call.outcome, run)
        finally:
            with self._lock:
                self._calls -= 1
                self._running_since = None
            del run, call

    def _forget_the_idle(self) -> None:
        idle = [
            name
            for name, one in self._clients.items()
            if not one.waiting and one.had <= self._virtual
        ]
        for name in idle:
            del self._clients[name]


def _fill(outcome: "Future[Any]", run: Callable[[], Any]) -> None:
    try:
        outcome.set_result(run())
    except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited
        outcome.set_exception(error)
    finally:
        del outcome


def _give_way(niceness: int) -> None:
    """Linux has a niceness for each thread, and names a thread as it does a process."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, now + niceness)
