"""Tests of latency measurement under a fake clock, which makes every number exact."""

import gc

import numpy as np
import pytest

from bench.measure.latency import LatencyPlan, LatencySession

IMAGES = np.zeros((128, 32, 32, 3), np.uint8)


class FakeClock:
    """Clock that advances only on command."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


class FakeExecutor:
    """Executor that takes ``ns_per_image`` for each image and records every call."""

    provider = "FakeExecutionProvider"

    def __init__(self, name: str, clock: FakeClock, calls: list, ns_per_image: int = 1_000) -> None:
        self.name, self.clock, self.calls, self.ns_per_image = name, clock, calls, ns_per_image
        self.collecting: set[bool] = set()
        self.fail_at: int | None = None
        self.interrupt_at: int | None = None

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.calls.append((self.name, len(images)))
        self.collecting.add(gc.isenabled())
        if len(self.calls) == self.fail_at:
            message = "out of memory"
            raise RuntimeError(message)
        if len(self.calls) == self.interrupt_at:
            raise KeyboardInterrupt
        self.clock.now_ns += self.ns_per_image * len(images)
        return np.zeros((len(images), 10), np.float32)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_samples_calls_and_throughput_are_exact(clock: FakeClock) -> None:
    calls: list = []
    plan = LatencyPlan(
        batch_sizes=(1, 8), rounds=3, warm_up_calls=5, block_warm_up_calls=2, block_calls=100
    )
    session = LatencySession({"a": FakeExecutor("a", clock, calls)}, IMAGES, plan, clock)
    session.run()

    one, eight = session.latencies("a")
    assert one.samples_ns == (1_000,) * 300
    assert eight.samples_ns == (8_000,) * 300
    assert (one.rounds, one.warm_up_calls, one.threads) == (3, 5 + 3 * 2, 1)
    assert one.provider == "FakeExecutionProvider"
    assert len(calls) == 2 * (5 + 3 * (2 + 100))
    fast, slow = session.throughputs("a")
    assert fast.block_images == (100,) * 3
    assert fast.block_ns == (100_000,) * 3
    assert slow.block_images == (800,) * 3


def test_every_call_has_new_images_and_all_models_have_the_same(clock: FakeClock) -> None:
    """A graph with an early exit takes longer for some images than for others."""
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((1, 32, 32, 3), np.uint8)
    plan = LatencyPlan(
        batch_sizes=(1, 4), rounds=2, warm_up_calls=2, block_warm_up_calls=1, block_calls=5
    )
    seen: dict[str, list[list[int]]] = {"a": [], "b": []}

    class Noting(FakeExecutor):
        def predict(self, images: np.ndarray) -> np.ndarray:
            seen[self.name].append(images[:, 0, 0, 0].tolist())
            return super().predict(images)

    session = LatencySession({name: Noting(name, clock, []) for name in seen}, images, plan, clock)
    session.run()
    assert seen["a"] == seen["b"]
    alone = [found[0] for found in seen["a"] if len(found) == 1]
    assert alone == [number % 10 for number in range(2 + 2 * (1 + 5))]
    assert [found for found in seen["a"] if len(found) == 4][:3] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [0, 1, 2, 3],
    ]
    assert [found.batches for found in session.latencies("a")] == [10, 2]


def test_models_are_interleaved_in_every_round(clock: FakeClock) -> None:
    calls: list = []
    executors = {name: FakeExecutor(name, clock, calls) for name in "ab"}
    plan = LatencyPlan(
        batch_sizes=(1,), rounds=2, warm_up_calls=1, block_warm_up_calls=0, block_calls=2
    )
    LatencySession(executors, IMAGES, plan, clock).run()
    assert "".join(name for name, _ in calls) == "ab" + "aabb" * 2


def test_a_slow_model_ends_its_block_by_time_after_the_minimum_of_calls(clock: FakeClock) -> None:
    calls: list = []
    plan = LatencyPlan(batch_sizes=(1,), rounds=1, block_calls_least=3, block_ns=1_000_000)
    slow = FakeExecutor("slow", clock, calls, ns_per_image=5_000_000)
    middling = FakeExecutor("middling", clock, calls, ns_per_image=100_000)
    session = LatencySession({"slow": slow, "middling": middling}, IMAGES, plan, clock)
    session.run()
    assert len(session.latencies("slow")[0].samples_ns) == 3
    assert len(session.latencies("middling")[0].samples_ns) == 10
    assert session.latencies("slow")[0].warm_up_calls == 1 + 2


def test_samples_are_rounded_to_100_ns(clock: FakeClock) -> None:
    plan = LatencyPlan(batch_sizes=(1,), rounds=1, block_calls=1)
    session = LatencySession({"a": FakeExecutor("a", clock, [], 1_249)}, IMAGES, plan, clock)
    session.run()
    assert session.latencies("a")[0].samples_ns == (1_200,)


def test_garbage_is_collected_only_between_blocks(clock: FakeClock) -> None:
    executor = FakeExecutor("a", clock, [])
    plan = LatencyPlan(batch_sizes=(1,), rounds=1, block_warm_up_calls=0, warm_up_calls=1)
    session = LatencySession({"a": executor}, IMAGES, plan, clock)
    session.run()
    assert executor.collecting == {True, False}  # on in the warm-up, off in the block
    assert gc.isenabled()


def test_a_failing_model_stops_and_the_others_go_on(clock: FakeClock) -> None:
    calls: list = []
    bad, good = FakeExecutor("bad", clock, calls), FakeExecutor("good", clock, calls)
    bad.fail_at = 50
    plan = LatencyPlan(batch_sizes=(1,), rounds=3, warm_up_calls=1, block_calls=20)
    session = LatencySession({"bad": bad, "good": good}, IMAGES, plan, clock)
    session.run()
    assert str(session.failures["bad"]) == "out of memory"
    assert len(session.latencies("bad")[0].samples_ns) == 20  # its one whole block
    assert len(session.latencies("good")[0].samples_ns) == 60
    assert gc.isenabled()


def test_an_interruption_keeps_what_was_measured(clock: FakeClock) -> None:
    executor = FakeExecutor("a", clock, [])
    executor.interrupt_at = 50
    plan = LatencyPlan(batch_sizes=(1,), rounds=9, warm_up_calls=1, block_calls=20)
    session = LatencySession({"a": executor}, IMAGES, plan, clock)
    with pytest.raises(KeyboardInterrupt):
        session.run()
    assert session.latencies("a")[0].rounds == 2
    assert gc.isenabled()


def test_too_few_images(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="too few"):
        LatencySession({}, IMAGES[:4], LatencyPlan(), clock)


def test_batches_whose_calls_are_too_slow_are_left_out(clock: FakeClock) -> None:
    calls: list = []
    executors = {
        "slow": FakeExecutor("slow", clock, calls, ns_per_image=1_000),
        "fast": FakeExecutor("fast", clock, calls, ns_per_image=1),
    }
    plan = LatencyPlan(
        batch_sizes=(1, 8, 32), rounds=1, warm_up_calls=2, block_calls=3, call_ns_most=500
    )
    session = LatencySession(executors, IMAGES, plan, clock)
    session.run()
    assert [one.batch_size for one in session.latencies("fast")] == [1, 8, 32]
    assert [one.batch_size for one in session.latencies("slow")] == [1]  # the smallest always
    assert calls.count(("slow", 8)) == 2  # its warm-up
    assert ("slow", 32) not in calls
