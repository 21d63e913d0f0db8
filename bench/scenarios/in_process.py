"""Run the scenarios on a predictor in this process, with one caller and a replaceable clock.

In Server, one caller takes the queries in due order. The latency of a query includes its wait for
the previous one. There is no batching.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.arrivals import arrivals_s
from bench.load.sent import OK, Sent
from bench.measure.latency import Clock, Executor
from bench.measure.progress import Progress, silent
from bench.rows.kinds.speed import SCENARIOS, Scenario, ScenarioMeasurement
from bench.rows.row import device_of
from bench.scenarios.rules import (
    IMAGES_PER_MULTI_STREAM_QUERY,
    ScenarioPlan,
    Setting,
    describe,
    search_server_rate,
)

Sleep = Callable[[float], None]
"""Function that waits that many seconds, such as ``time.sleep``."""

_SPIN_S: Final = 0.0005
"""Seconds of each wait spent polling the clock, because a sleeping process wakes late."""


class InProcess:
    """Runs scenarios on one model.

    Args:
        images: uint8 (N, height, width, 3), RGB; real images, at least as many as the largest
            batch.
        clock: returns nanoseconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        executor: Executor,
        images: NDArray[np.uint8],
        plan: ScenarioPlan = ScenarioPlan(),
        clock: Clock = time.perf_counter_ns,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._executor = executor
        self._images = images
        self._plan = plan
        self._clock = clock
        self._sleep = sleep
        self._setting = Setting("in process", device_of(executor.provider), plan)

    def run(self, progress: Progress = silent) -> Iterator[ScenarioMeasurement]:
        """Yield each scenario's measurement as soon as it is known."""
        for position, scenario in enumerate(SCENARIOS):
            progress(scenario, position, len(SCENARIOS))
            yield self._server(progress) if scenario == "server" else self._closed(scenario)

    def _closed(self, scenario: Scenario) -> ScenarioMeasurement:
        size = {
            "single_stream": 1,
            "multi_stream": IMAGES_PER_MULTI_STREAM_QUERY,
            "offline": self._plan.offline_batch_size,
        }[scenario]
        warm_up = self._back_to_back(size, self._plan.warm_up_seconds)
        sent = self._back_to_back(size, self._plan.seconds)
        return describe(
            self._setting,
            scenario,
            sent,
            warm_up_queries=warm_up.queries,
            images_per_query=size,
        )

    def _server(self, progress: Progress) -> ScenarioMeasurement:
        capacity = self._back_to_back(1, self._plan.warm_up_seconds)
        first = capacity.queries / float(capacity.done_s.max()) / 2
        return search_server_rate(self._setting, self._offer, first, progress)

    def _back_to_back(self, size: int, seconds: float) -> Sent:
        """Run queries of ``size`` images until the time is over, at least one."""
        clock, predict = self._clock, self._executor.predict
        start = clock()
        until = start + round(seconds * 1e9)
        begun: list[int] = []
        ended: list[int] = []
        while not begun or ended[-1] < until:
            batch = self._batch(len(begun), size)
            begun.append(clock())
            predict(batch)
            ended.append(clock())
        sent_s = (np.array(begun) - start) / 1e9
        done_s = (np.array(ended) - start) / 1e9
        return Sent(sent_s, sent_s, done_s, np.full(len(begun), OK, np.int16))

    def _offer(self, rate_per_s: float, seconds: float, seed: int) -> tuple[Sent, None]:
        """Send queries of one image at a fixed rate, in an open loop."""
        clock = self._clock
        due_s = arrivals_s(rate_per_s, seconds, seed=seed)
        sent_s, done_s = np.empty_like(due_s), np.empty_like(due_s)
        start = clock()
        for number, due in enumerate(due_s):
            image = self._batch(number, 1)
            self._wait_until(start + round(due * 1e9))
            sent_s[number] = (clock() - start) / 1e9
            self._executor.predict(image)
            done_s[number] = (clock() - start) / 1e9
        return Sent(due_s, sent_s, done_s, np.full(due_s.size, OK, np.int16)), None

    def _wait_until(self, moment_ns: int) -> None:
        while (ahead := (moment_ns - self._clock()) / 1e9) > 0:
            self._sleep(ahead - _SPIN_S if ahead > _SPIN_S else 0)

    def _batch(self, number: int, size: int) -> NDArray[np.uint8]:
        """Return ``size`` images, different ones for each query."""
        last = len(self._images) - size
        first = number * size % (last + 1)
        return self._images[first : first + size]
