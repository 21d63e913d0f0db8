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
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from service.batcher import past_deadline
from service.problems import Kind, try_later

T = TypeVar("T")

_MOST_IDLE_CLIENTS: Final = 1_024
"""Clients that wait for nothing and are remembered for what they have had."""


@dataclass(eq=False, slots=True)
class _Client:
    name: Hashable
    had: float
    """Seconds of the thread that it has had, on the clock of :attr:`FairThread._now`."""
    waiting: "deque[_Call]" = field(default_factory=deque)
    seconds: float = 0.0
    """Of what waits."""


@dataclass(eq=False, slots=True)
class _Call:
    client: _Client
    seconds: float
    function: Callable[[], Any] | None
    """None once it has been taken or given up."""
    outcome: "Future[Any]"


class FairThread:
    """One thread, and the calls that wait for it.

    Args:
        name: of the thread.
        most_calls: the most that wait or run.
        most_seconds: the most that those which wait may take together; where nothing waits, a call
            is admitted whatever its cost.
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
        self._clients: dict[Hashable, _Client] = {}
        self._now = 0.0
        """What the client that was served last had had before: where a newcomer begins."""
        self._waiting = 0
        self._running = 0
        self._running_since: float | None = None

    async def run(
        self,
        deadline: float,
        client: Hashable,
        seconds: float,
        function: Callable[..., T],
        *arguments: Any,
        is_continued: bool = False,
    ) -> T:
        """Return ``function(*arguments)``, called in the thread. What has not started by the
        deadline never does.

        Args:
            deadline: on the event loop's clock.
            client: who asks; each gets the same share of the thread.
            seconds: about what the call will take of it.
            function: it and its arguments are forgotten when it has run.
            *arguments: of the call.
            is_continued: whether it goes on with work that was admitted before. Such a call is
                never refused and goes before the other calls of its client.

        Raises:
            Problem: 503, there is no place in the queue; 504, the deadline has passed.
        """
        call = self._enter(client, seconds, partial(function, *arguments), is_continued)
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

    def _enter(
        self, name: Hashable, seconds: float, function: Callable[[], Any], is_continued: bool
    ) -> _Call:
        refused: list[_Call] = []
        with self._lock:
            client = self._clients.get(name) or _Client(name, self._now)
            call = _Call(client, seconds, function, Future())
            while not is_continued and not self._fits(seconds):
                most = max(self._clients.values(), key=self._share, default=client)
                if self._share(most) <= self._share(client, call):
                    break
                refused.append(most.waiting[-1])
                self._take_out(refused[-1])
            is_admitted = is_continued or self._fits(seconds)
            if is_admitted:
                if not client.waiting:
                    client.had = max(client.had, self._now)
                    self._clients[name] = client
                if is_continued:
                    client.waiting.appendleft(call)
                else:
                    client.waiting.append(call)
                client.seconds += seconds
                self._waiting += 1
            refusal = f"{self._waiting} requests, some {self._seconds():.1f} seconds of work, wait"
        detail = f"{refusal} already; try again in a second"
        for one in refused:
            one.outcome.set_exception(try_later(Kind.QUEUE_FULL, detail))
        if not is_admitted:
            raise try_later(Kind.QUEUE_FULL, detail)
        return call

    def _fits(self, seconds: float) -> bool:
        if self._waiting + self._running >= self._most_calls:
            return False
        return not self._waiting or self._seconds() + seconds <= self._most_seconds

    def _seconds(self) -> float:
        return sum(client.seconds for client in self._clients.values())

    def _share(self, client: _Client, more: _Call | None = None) -> float:
        """The part of the queue that is a client's, in calls or in seconds, where it has more."""
        calls = len(client.waiting) + (1 if more else 0)
        seconds = client.seconds + (more.seconds if more else 0.0)
        return max(calls / self._most_calls, seconds / self._most_seconds)

    def _take_out(self, call: _Call) -> Callable[[], Any] | None:
        """Take a call that waits out of the queue."""
        client, function = call.client, call.function
        client.waiting.remove(call)
        client.seconds = client.seconds - call.seconds if client.waiting else 0.0
        self._waiting -= 1
        call.function = None
        return function

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if call.function is not None:
                self._take_out(call)

    def _run_next(self) -> None:
        with self._lock:
            waiting = [client for client in self._clients.values() if client.waiting]
            if not waiting:  # whoever asked for this turn has given up
                self._clients.clear()
                return
            client = min(waiting, key=lambda one: one.had)
            call = client.waiting[0]
            seconds, outcome = call.seconds, call.outcome
            function = self._take_out(call)
            self._now = client.had
            self._running = 1
            self._running_since = started = monotonic()
        if function is not None and outcome.set_running_or_notify_cancel():
            _call(function, outcome)
        del function, outcome, call  # as in run
        with self._lock:
            client.had += max(seconds, monotonic() - started)
            self._running = 0
            self._running_since = None
            self._forget()

    def _forget(self) -> None:
        """Forget clients that wait for nothing, and have had no more than a newcomer, or all where
        they are many or nobody waits."""
        all_idle = not self._waiting or len(self._clients) > _MOST_IDLE_CLIENTS
        for name, client in list(self._clients.items()):
            if not client.waiting and (all_idle or client.had <= self._now):
                del self._clients[name]


def _call(function: Callable[[], Any], outcome: "Future[Any]") -> None:
    try:
        outcome.set_result(function())
    except BaseException as error:
        outcome.set_exception(error)
    finally:
        del outcome  # as in FairThread.run


def _give_way(niceness: int) -> None:
    """Linux has a niceness for each thread, and names a thread as it does a process."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, now + niceness)
