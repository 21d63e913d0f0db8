"""Tests of scenarios, rate search, windows and load loops in virtual time: all exact."""

import asyncio

import numpy as np
import pytest

from bench.load.arrivals import arrivals_s
from bench.load.drive import Driver
from bench.load.loops import closed_loop, open_loop
from bench.load.sent import Sent
from bench.rows.kinds.speed import ScenarioMeasurement
from bench.rows.packed import pack_times_us, unpack_times_us
from bench.scenarios.in_process import InProcess
from bench.scenarios.over_http import OverHttp
from bench.scenarios.rules import ScenarioPlan, Setting, assess_try, describe
from bench.statistics.rate_search import RateTry, SearchPlan, search_rate
from bench.statistics.stability import disagreement, window_medians
from cifar10.errors import BenchError
from tests.bench.measure.test_latency import FakeClock
from tests.bench.virtual_time import run_virtually

IMAGES = np.zeros((64, 32, 32, 3), np.uint8)


def test_packed_times_round_trip_and_damage_is_an_error() -> None:
    times = np.array([0, 1, 999, 70_000, 4_000_000_000])
    assert unpack_times_us(pack_times_us(times)).tolist() == times.tolist()
    assert unpack_times_us(pack_times_us([])).size == 0
    assert len(pack_times_us(np.full(10_000, 1_234))) < 200
    with pytest.raises(BenchError, match="damaged"):
        unpack_times_us("not packed")


def test_arrivals_are_seeded_poisson_or_even() -> None:
    found = arrivals_s(1_000, 10, seed=1)
    assert (found == arrivals_s(1_000, 10, seed=1)).all()
    assert (np.diff(found) >= 0).all()
    assert found[-1] < 10
    assert found.size == pytest.approx(10_000, abs=400)  # four standard deviations
    gaps = np.diff(found)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    assert arrivals_s(4, 1, seed=0, shape="constant").tolist() == [0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="positive"):
        arrivals_s(0, 1, seed=0)


def test_windows_that_disagree_are_unstable() -> None:
    assert window_medians(range(29)) == []
    assert window_medians([1.0] * 30) == [1.0] * 6
    assert disagreement([9, 9, 9, 1.0, 1.1, 1.05]) == pytest.approx(0.1 / 1.05)


def truth(capacity: float, tried: list[float]):
    """Return a server whose p99 meets the bound up to exactly this rate."""

    def attempt(rate: float) -> RateTry:
        tried.append(rate)
        held = rate <= capacity
        return RateTry(rate, 100, 0, 10.0 if held else 99.0, held)

    return attempt


@pytest.mark.parametrize("first", [1.0, 50.0, 100.0, 800.0])
def test_the_search_ends_just_below_the_truth(first: float) -> None:
    plan = SearchPlan(growth=2, precision=0.05, tries=40)
    found, tries = search_rate(truth(100, []), first, plan)
    assert found is not None
    assert 100 / 1.05 <= found.rate_per_s <= 100
    assert tries[-1] == found
    assert [one.rate_per_s for one in tries].count(found.rate_per_s) == 2  # confirmed


def test_the_search_goes_up_in_steps_then_halves_exactly() -> None:
    tried: list[float] = []
    search_rate(truth(100, tried), 25, SearchPlan(growth=2, precision=0.2))
    halves = [200**0.5 * 10, (100 * 200**0.5 * 10) ** 0.5]
    assert tried == pytest.approx([25, 50, 100, 200, *halves, 100])


def test_a_lucky_rate_is_not_reported_and_no_rate_may_hold() -> None:
    answers = iter([True, False, True, False, False, True])

    def attempt(rate: float) -> RateTry:
        held = next(answers)
        return RateTry(rate, 1, 0, 1.0, held)

    plan = SearchPlan(growth=2, precision=0.5, tries=3)
    found, tries = search_rate(attempt, 100, plan)
    lucky = 100 * 2**0.5
    assert found is not None
    assert found.rate_per_s == pytest.approx(lucky / 1.5**3)
    assert len(tries) == 6
    assert search_rate(truth(0, []), 100, plan)[0] is None


class FakeModel:
    provider = "CPUExecutionProvider"

    def __init__(self, clock: FakeClock, ns_per_image: int) -> None:
        self.clock, self.ns_per_image = clock, ns_per_image

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.clock.now_ns += self.ns_per_image * len(images)
        return np.zeros((len(images), 10), np.float32)


def in_process(ns_per_image: int = 1_000_000, **plan) -> dict[str, ScenarioMeasurement]:
    clock = FakeClock()

    def sleep(seconds: float) -> None:
        clock.now_ns += max(20_000, round(seconds * 1e9))

    session = InProcess(FakeModel(clock, ns_per_image), IMAGES, ScenarioPlan(**plan), clock, sleep)
    return {found.scenario: found for found in session.run()}


def test_in_process_scenarios_are_exact() -> None:
    found = in_process(seconds=1, warm_up_seconds=0.5, offline_batch_size=32)
    single = found["single_stream"]
    assert (single.queries, single.warm_up_queries, single.loop) == (1_000, 500, "closed")
    assert single.headline.value == 1.0
    assert single.headline.unit == "ms"
    assert set(single.times_ms) == {1.0}
    assert single.windows_apart == 0
    assert found["multi_stream"].headline.value == 8.0
    assert found["multi_stream"].images_per_query == 8
    offline = found["offline"].headline
    assert offline.value == pytest.approx(1_000)
    assert offline.unit == "images/s"


def test_the_server_scenario_finds_a_rate_below_capacity_and_counts_waiting() -> None:
    """An M/D/1 queue of 1 ms a query: in theory its p99 is about 23 ms at 90 % of capacity and
    11 ms at 80 %, so the bound of 15 ms lies between."""
    server = in_process(try_seconds=8, warm_up_seconds=0.5)["server"]
    assert server.loop == "open"
    assert server.rate_per_s is not None
    assert 700 < server.rate_per_s < 950
    assert any(one.rate_per_s > 950 and not one.held for one in server.tries)
    assert server.tries[-1].held
    found = server.latency_ms(99)
    assert found is not None
    assert 1 < found[0] <= 15
    assert found[0] == pytest.approx(server.tries[-1].p99_ms, rel=1e-3)


def test_a_model_that_never_keeps_the_bound() -> None:
    server = in_process(ns_per_image=20_000_000, try_seconds=1)["server"]
    assert server.rate_per_s is None
    assert server.headline.value is None
    assert all(not one.held for one in server.tries)


class FakeService:
    """Service for ``workers`` requests at a time, of fixed length; can stall once or refuse."""

    def __init__(self, seconds: float = 0.01, workers: int = 1, status: int = 200) -> None:
        self.seconds, self.workers, self.status = seconds, workers, status
        self.connections: list[int] = []
        self.stall: tuple[int, float] | None = None
        self._free: asyncio.Semaphore | None = None

    async def send(self, number: int) -> int:
        if self._free is None:
            self._free = asyncio.Semaphore(self.workers)
        async with self._free:
            extra = self.stall[1] if self.stall and self.stall[0] == number else 0.0
            await asyncio.sleep(self.seconds + extra)
        return self.status

    async def open_connections(self, count: int) -> None:
        self.connections.append(count)
        self._free = None

    def close(self) -> None:
        pass


def test_open_loop_times_from_when_a_request_was_due() -> None:
    """A stall of one second adds to the time of every request due meanwhile; a closed loop sees
    it once (coordinated omission)."""
    stalled = FakeService(seconds=0.001)
    stalled.stall = (10, 1.0)
    sent = run_virtually(open_loop(stalled.send, 100, 3, seed=0, shape="constant"))
    assert sent.due_s.tolist() == pytest.approx(np.arange(0, 3, 0.01).tolist())
    assert sent.succeeded.all()
    waited = sent.times_ms > 5
    assert waited.sum() > 90
    assert sent.times_ms.max() == pytest.approx(1_001)
    again = FakeService(seconds=0.001)
    again.stall = (10, 1.0)
    closed = run_virtually(closed_loop(again.send, 1, 3))
    assert (closed.times_ms > 5).sum() == 1


def test_closed_loop_keeps_its_users_busy() -> None:
    service = FakeService(seconds=0.01, workers=100)
    sent = run_virtually(closed_loop(service.send, 4, 1))
    assert sent.times_ms.size == pytest.approx(400, abs=4)
    assert sent.times_ms.tolist() == pytest.approx([10] * sent.times_ms.size)


def test_a_query_of_eight_ends_with_its_last_answer() -> None:
    service = FakeService(seconds=0.01, workers=4)
    sent = run_virtually(closed_loop(service.send, 1, 0.095, requests_per_query=8))
    assert sent.times_ms.tolist() == pytest.approx([20] * 5)


def test_an_exception_from_check_ends_the_loop() -> None:
    def check() -> None:
        message = "the server stopped by itself"
        raise BenchError(message)

    with pytest.raises(BenchError, match="stopped by itself"):
        run_virtually(open_loop(FakeService().send, 10, 60, seed=0, check=check))


def over_http(service: FakeService, **plan) -> dict[str, ScenarioMeasurement]:
    driver = Driver(service, run=lambda work: (run_virtually(work), 0.25))
    session = OverHttp(driver, "cpu", ScenarioPlan(**plan))
    return {found.scenario: found for found in session.run()}


def test_http_scenarios_are_exact() -> None:
    service = FakeService(seconds=0.01, workers=2)
    found = over_http(service, seconds=2, warm_up_seconds=1, try_seconds=4)
    single = found["single_stream"]
    assert (single.via, single.loop, single.concurrency) == ("http", "closed", 1)
    assert single.queries == pytest.approx(200, abs=1)  # the last one begins at 3 s, or not
    assert single.warm_up_queries == 100
    assert single.headline.value == pytest.approx(10)
    assert found["multi_stream"].headline.value == pytest.approx(40)  # 8 on 2 workers
    assert found["offline"].concurrency == 16
    assert found["offline"].headline.value == pytest.approx(200, rel=0.01)
    server = found["server"]
    assert server.rate_per_s is not None
    assert server.rate_per_s < 200
    assert server.generator_cpu_share == 0.25
    assert server.send_lag_p99_ms == pytest.approx(0, abs=1e-6)
    assert service.connections[:2] == [1, 8]


def test_a_service_that_refuses_everything_is_an_error() -> None:
    with pytest.raises(BenchError, match="no request of single_stream succeeded"):
        over_http(FakeService(status=503), seconds=1)


def sent(times_ms: list[float], failed: int = 0) -> Sent:
    due = np.arange(len(times_ms)) * 0.1
    good = np.arange(len(times_ms)) >= failed
    return Sent(due, due, due + np.array(times_ms) / 1e3, np.where(good, 200, 503))


def test_a_try_holds_only_when_all_is_answered_in_time() -> None:
    plan = ScenarioPlan(bound_ms=15)
    assert assess_try(sent([15.0] * 10), 10, plan).held
    assert not assess_try(sent([15.1] * 10), 10, plan).held
    assert not assess_try(sent([1.0] * 10, failed=1), 10, plan).held
    nothing = assess_try(sent([1.0], failed=1), 10, plan)
    assert (nothing.held, nothing.p99_ms) == (False, None)


def test_a_run_that_slows_down_is_marked_and_not_averaged_away() -> None:
    setting = Setting("http", "cpu", ScenarioPlan())
    steady = describe(setting, "single_stream", sent([2.0] * 60), warm_up_queries=0)
    slowing = describe(setting, "single_stream", sent([2.0] * 50 + [3.0] * 10), warm_up_queries=0)
    assert steady.windows_apart == 0
    assert slowing.windows_apart == pytest.approx(0.5)
