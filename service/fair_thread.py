"""A worker thread with a queue that is bounded by cost and fair between clients.

A plain request queue counts every image alike, although one of 46 bytes can take a second to
decode, and it serves most the client that sends most. Here each call has an estimated cost in
seconds, known before it is queued:

- The queue is bounded both in calls and in seconds.
- The thread takes its next call from the client that has used it least (start-time fair queueing,
  Goyal et al. 1996). So a client with one photo waits for one photo of each other client.
- A call that does not fit replaces the newest call of the client with the largest share of the
  queue, if that share is larger than its own client's would be.
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
"""Maximum number of idle clients whose past use of the thread is remembered."""


@dataclass(eq=False, slots=True)
class _Client:
    """A client and its waiting calls."""

    name: Hashable
    used: float
    """Seconds of the thread that it has used, on the virtual clock :attr:`FairThread._now`."""
    waiting: "deque[_Call]" = field(default_factory=deque)
    seconds: float = 0.0
    """Total cost of the waiting calls."""


@dataclass(eq=False, slots=True)
class _Call:
    """A call of one client, waiting or running."""

    client: _Client
    seconds: float
    function: Callable[[], Any] | None
    """The function to call; None once the call has started or been abandoned."""
    outcome: "Future[Any]"


class FairThread:
    """A single worker thread and its queue of calls.

    Args:
        name: the thread's name.
        most_calls: largest number of calls waiting or running.
        most_seconds: largest total cost of the waiting calls. If none is waiting, a call is
            admitted whatever its cost.
        niceness: added to the thread's niceness, to lower its scheduling priority (Linux only).
    """

    def __init__(
        self, name: str, most_calls: int, most_seconds: float = inf, niceness: int = 0
    ) -> None:
        self._most_calls = most_calls
        self._most_seconds = most_seconds
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=_lower_priority, initargs=(niceness,)
        )
        self._lock = threading.Lock()
        self._clients: dict[Hashable, _Client] = {}
        self._now = 0.0
        """Virtual time: the use by the client served last, before that call. New clients start
        here."""
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
        """Return ``function(*arguments)``, called in the thread. A call that has not started by the
        deadline is dropped.

        Args:
            deadline: time on the event loop's clock.
            client: the client's identity; every client gets the same share of the thread.
            seconds: estimated cost of the call.
            function: the function to call; released with its arguments as soon as it has run.
            *arguments: arguments of the call.
            is_continued: whether the call continues work that was admitted before. Such a call is
                never refused and goes ahead of its client's other calls.

        Raises:
            Problem: 503 when the queue is full, 504 when the deadline has passed.
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
            # An exception refers to this frame. If the frame also referred to the exception, both,
            # and the request's body, would stay in memory until the next full garbage collection.
            del call

    def busy_seconds(self) -> float:
        """Return how long the current call has been running; 0 if there is none."""
        since = self._running_since
        return 0.0 if since is None else monotonic() - since

    def stop(self) -> None:
        """Drop the calls that have not started, and end the thread."""
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
                    client.used = max(client.used, self._now)
                    self._clients[name] = client
                if is_continued:
                    client.waiting.appendleft(call)
                else:
                    client.waiting.append(call)
                client.seconds += seconds
                self._waiting += 1
            queued = f"{self._waiting} requests (about {self._seconds():.1f} seconds of work)"
        detail = f"{queued} are waiting already; try again in a second"
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
        """Return a client's share of the queue, in calls or in seconds, whichever is larger.
        ``more`` is counted as if it were waiting too."""
        calls = len(client.waiting) + (1 if more else 0)
        seconds = client.seconds + (more.seconds if more else 0.0)
        return max(calls / self._most_calls, seconds / self._most_seconds)

    def _take_out(self, call: _Call) -> Callable[[], Any] | None:
        """Remove a waiting call from the queue and return its function."""
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
            if not waiting:  # the call that scheduled this run was abandoned
                self._clients.clear()
                return
            client = min(waiting, key=lambda one: one.used)
            call = client.waiting[0]
            seconds, outcome = call.seconds, call.outcome
            function = self._take_out(call)
            self._now = client.used
            self._running = 1
            self._running_since = started = monotonic()
        if function is not None and outcome.set_running_or_notify_cancel():
            _call(function, outcome)
        del function, outcome, call  # for the reason given in run
        with self._lock:
            client.used += max(seconds, monotonic() - started)
            self._running = 0
            self._running_since = None
            self._forget_idle_clients()

    def _forget_idle_clients(self) -> None:
        """Forget idle clients that have used no more than a new client would start with. Forget all
        idle clients if there are too many of them or no call is waiting."""
        all_idle = not self._waiting or len(self._clients) > _MOST_IDLE_CLIENTS
        for name, client in list(self._clients.items()):
            if not client.waiting and (all_idle or client.used <= self._now):
                del self._clients[name]


def _call(function: Callable[[], Any], outcome: "Future[Any]") -> None:
    try:
        outcome.set_result(function())
    except BaseException as error:
        outcome.set_exception(error)
    finally:
        del outcome  # for the reason given in FairThread.run


def _lower_priority(niceness: int) -> None:
    """Add to this thread's niceness. On Linux each thread has its own and is addressed like a
    process."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, now + niceness)
