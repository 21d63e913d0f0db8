"""One thread, its bounded queue, and whose turn it is."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.fair_thread import FairThread
from service.problems import Kind, Problem


class Held:
    """A fair thread whose first call waits until it is released."""

    def __init__(self, thread: FairThread) -> None:
        self.thread = thread
        self.release = threading.Event()
        self.order: list[str] = []
        self.started = threading.Event()

    async def hold(self) -> "asyncio.Task[None]":
        def wait() -> None:
            self.started.set()
            self.release.wait(30)

        task = asyncio.create_task(self.call("holder", 0.0, wait))
        while not self.started.is_set():
            await asyncio.sleep(0)
        return task

    async def call(
        self, client: str, seconds: float, function: Callable[[], None] | None = None, **more: bool
    ) -> None:
        deadline = asyncio.get_running_loop().time() + 30
        note = function or (lambda: self.order.append(client))
        await self.thread.run(deadline, client, seconds, note, **more)

    async def queue(self, *calls: tuple[str, float]) -> "list[asyncio.Task[None]]":
        tasks = []
        for client, seconds in calls:
            tasks.append(asyncio.create_task(self.call(client, seconds)))
            await asyncio.sleep(0)
        return tasks


def run_held(thread: FairThread, calls: list[tuple[str, float]]) -> tuple[list[str], list[object]]:
    """(the order in which queued calls ran, what came of each as it was queued)."""

    async def main() -> tuple[list[str], list[object]]:
        held = Held(thread)
        holder = await held.hold()
        tasks = await held.queue(*calls)
        held.release.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await holder
        return held.order, list(outcomes)

    try:
        return asyncio.run(main())
    finally:
        thread.stop()


def kinds(outcomes: list[object]) -> list[Kind | None]:
    return [one.kind if isinstance(one, Problem) else None for one in outcomes]


def test_clients_take_turns_by_what_they_have_had():
    calls = [("many", 1.0)] * 5 + [("one", 1.0), ("cheap", 0.25), ("cheap", 0.25)]
    order, _ = run_held(FairThread("test", 32), calls)
    assert order == ["many", "one", "cheap", "cheap", "many", "many", "many", "many"]


def test_one_client_s_calls_keep_their_order():
    order, outcomes = run_held(FairThread("test", 8), [("a", 0.1), ("b", 9.0), ("a", 0.1)])
    assert order == ["a", "b", "a"]
    assert kinds(outcomes) == [None] * 3


def test_seconds_that_wait_are_bounded():
    calls = [("a", 3.0), ("a", 3.0), ("a", 5.0), ("a", 4.0)]
    _, outcomes = run_held(FairThread("test", 32, most_seconds=10.0), calls)
    assert kinds(outcomes) == [None, None, Kind.QUEUE_FULL, None]
    problem = outcomes[2]
    assert isinstance(problem, Problem)
    assert "some 6.0 seconds of work" in problem.detail
    assert problem.headers == ((b"retry-after", b"1"),)


def test_any_call_is_admitted_where_none_waits():
    _, outcomes = run_held(FairThread("test", 32, most_seconds=1.0), [("a", 50.0), ("a", 0.1)])
    assert kinds(outcomes) == [None, Kind.QUEUE_FULL]


def test_who_fills_the_queue_makes_room_for_others():
    calls = [("many", 3.0)] * 3 + [("other", 3.0), ("third", 3.0)]
    order, outcomes = run_held(FairThread("test", 32, most_seconds=10.0), calls)
    assert kinds(outcomes) == [None, Kind.QUEUE_FULL, Kind.QUEUE_FULL, None, None]
    assert sorted(order) == ["many", "other", "third"]


def test_calls_are_bounded_and_shared_too():
    calls = [("many", 0.01)] * 4 + [("other", 1.0), ("other", 0.01)]
    _, outcomes = run_held(FairThread("test", 4), calls)  # one of the four is running
    assert kinds(outcomes) == [None, None, Kind.QUEUE_FULL, Kind.QUEUE_FULL, None, Kind.QUEUE_FULL]


def test_work_that_goes_on_is_never_refused_and_goes_first():
    thread = FairThread("test", 2)

    async def main() -> list[str]:
        held = Held(thread)
        holder = await held.hold()
        waiting = await held.queue(("a", 0.1))
        more = asyncio.create_task(
            held.call("a", 0.1, lambda: held.order.append("more"), is_continued=True)
        )
        await asyncio.sleep(0)
        held.release.set()
        await asyncio.gather(holder, more, *waiting)
        return held.order

    assert asyncio.run(main()) == ["more", "a"]
    thread.stop()


def test_what_is_given_up_leaves_its_place_and_never_runs():
    thread = FairThread("test", 2)

    async def main() -> tuple[list[str], list[object]]:
        held = Held(thread)
        holder = await held.hold()
        (first,) = await held.queue(("a", 0.1))
        first.cancel()
        outcomes = await asyncio.gather(first, return_exceptions=True)
        second = await held.queue(("b", 0.1), ("c", 0.1))
        held.release.set()
        outcomes += await asyncio.gather(*second, return_exceptions=True)
        await holder
        return held.order, outcomes

    order, (first, *rest) = asyncio.run(main())
    thread.stop()
    assert isinstance(first, asyncio.CancelledError)
    assert (order, kinds(rest)) == (["b"], [None, Kind.QUEUE_FULL])


def test_the_deadline_is_that_of_the_whole_wait():
    thread = FairThread("test", 4)

    async def main() -> list[str]:
        held = Held(thread)
        holder = await held.hold()
        now = asyncio.get_running_loop().time()
        with pytest.raises(Problem) as caught:
            await thread.run(now, "a", 0.1, held.order.append, "late")
        held.release.set()
        await holder
        await held.call("b", 0.1)
        return [caught.value.kind.slug, *held.order]

    assert asyncio.run(main()) == ["deadline", "b"]
    thread.stop()


def test_clients_are_forgotten():
    thread = FairThread("test", 64)
    run_held(thread, [(str(number), 1.0) for number in range(40)])
    assert len(thread._clients) == 0


def test_it_knows_how_long_it_has_been_busy():
    thread = FairThread("test", 2)

    async def main() -> None:
        held = Held(thread)
        assert thread.busy_seconds() == 0
        holder = await held.hold()
        while not thread.busy_seconds():
            await asyncio.sleep(0)
        held.release.set()
        await holder
        while thread.busy_seconds():
            await asyncio.sleep(0)

    asyncio.run(main())
    thread.stop()
