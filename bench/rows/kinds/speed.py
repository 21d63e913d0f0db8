"""Rows about how fast a model answers in process, and in MLPerf's scenarios."""

from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from statistics import fmean
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from bench.rows.packed import unpack_times_us
from bench.rows.row import STRICT, Measurement
from bench.statistics.rate_search import RateTry
from bench.statistics.samples import Interval, bootstrap_interval, median, percentile
from bench.statistics.stability import disagreement, window_medians

Scenario = Literal["single_stream", "multi_stream", "server", "offline"]
Via = Literal["in process", "http"]
Loop = Literal["open", "closed"]

SCENARIO_TITLES: Final[dict[Scenario, str]] = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
"""MLPerf's four scenarios, in the order shown → their titles."""

SCENARIOS: Final = tuple(SCENARIO_TITLES)

_REPORTED_PERCENT: Final[dict[str, float]] = {"single_stream": 90, "multi_stream": 99}
_BOOTSTRAP_SAMPLES: Final = 5_000


@dataclass(frozen=True, config=STRICT)
class LatencyMeasurement(Measurement):
    """Time of single calls in process, one batch size."""

    kind: ClassVar[str] = "latency"

    provider: str
    threads: int
    batch_size: int
    warm_up_calls: int
    """Calls made and thrown away before the first sample, in all rounds together."""
    rounds: int
    """In how many interleaved rounds the samples were taken."""
    samples_ns: tuple[int, ...]
    """Duration of each call, rounded to 100 ns."""
    batches: int | None = None
    """How many different batches of images the calls were made with; None in rows older than this
    field, whose calls were all made with the same."""

    @property
    def key(self) -> str:
        """One per execution provider, thread count and batch size."""
        return f"provider={self.provider} threads={self.threads} batch={self.batch_size}"

    @cached_property
    def times_ms(self) -> NDArray[np.float64]:
        """Duration of each call in ms, in the order made: float64 (N,)."""
        times: NDArray[np.float64] = np.asarray(self.samples_ns, np.float64) / 1e6
        return times

    def percentile_ms(self, percent: float) -> float:
        """Percentile of the time of one call, in ms."""
        return percentile(self.samples_ns, percent) / 1e6

    @cached_property
    def median_interval_ms(self) -> Interval:
        """Bootstrap interval of the median time of one call, in ms."""
        return bootstrap_interval(self.times_ms)

    @property
    def mean_ms(self) -> float:
        """Mean time of one call, in ms."""
        return fmean(self.samples_ns) / 1e6


@dataclass(frozen=True, config=STRICT)
class ThroughputMeasurement(Measurement):
    """Images per second in process, one batch size: blocks of calls, back to back."""

    kind: ClassVar[str] = "throughput"

    provider: str
    threads: int
    batch_size: int
    block_images: tuple[int, ...]
    block_ns: tuple[int, ...]
    """Wall time of each block, with all that lies between its calls."""

    @property
    def key(self) -> str:
        """One per execution provider, thread count and batch size."""
        return f"provider={self.provider} threads={self.threads} batch={self.batch_size}"

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """Images per second of each block: float64 (blocks,)."""
        rates: NDArray[np.float64] = np.asarray(self.block_images) * 1e9 / np.asarray(self.block_ns)
        return rates

    @property
    def images_per_second(self) -> float:
        """Median over the blocks."""
        return median(self.rates)


@plain_dataclass(frozen=True)
class Headline:
    """The one figure that a scenario reports."""

    value: float | None
    """None: no rate held."""
    unit: str
    what: str
    interval: Interval | None


@dataclass(frozen=True, config=STRICT)
class ScenarioMeasurement(Measurement):
    """One MLPerf scenario, scaled down: ``queries`` and ``seconds`` state the scale."""

    kind: ClassVar[str] = "scenario"

    scenario: str
    """``single_stream``, ``multi_stream``, ``server`` or ``offline``."""
    via: str
    """``in process`` or ``http``."""
    device: str
    """``cpu`` or ``cuda``."""
    loop: str
    """``open``: sent when due, timed from when they were due. ``closed``: the next query follows
    the last answer."""
    images_per_query: int
    concurrency: int
    """Queries in flight in a closed loop; 0 in an open one: as many as are due."""
    warm_up_queries: int
    """Queries made before the measurement and thrown away."""
    seconds: float
    """Measured time, to the last answer."""
    queries: int
    """Queries in that time, the failed ones included."""
    failed: int
    times_us: str
    """Time of each successful query in the order in which they were due, packed by
    :func:`bench.rows.packed.pack_times_us`."""
    window_queries: tuple[int, ...]
    """Queries answered in each of equal windows of that time."""
    seed: int
    bound_ms: float | None
    """Server: what the p99 had to keep."""
    rate_per_s: float | None
    """Server: the highest rate that held twice; None where none did."""
    tries: tuple[RateTry, ...]
    """Server: every rate tried, in order."""
    send_lag_p99_ms: float | None
    """Open loop: how late the generator sent. Part of the times above, so that a slow generator
    is never taken for a fast server."""
    generator_cpu_share: float | None
    """CPU time over wall time of the generator, over HTTP."""

    @property
    def key(self) -> str:
        """One per scenario, way and device."""
        return f"{self.scenario} via={self.via} device={self.device}"

    @cached_property
    def times_ms(self) -> NDArray[np.float64]:
        """Time of each successful query in ms, in the order in which they were due."""
        return unpack_times_us(self.times_us) / 1e3

    def latency_ms(self, percent: float) -> tuple[float, Interval] | None:
        """Percentile of latency and its bootstrap interval; None without an answer.

        The interval comes from at most 5,000 evenly spaced samples when there are more: it is then
        wider than it had to be, never narrower.
        """
        times = self.times_ms
        if times.size == 0:
            return None
        step = -(-times.size // _BOOTSTRAP_SAMPLES)
        return percentile(times, percent), bootstrap_interval(times[::step], percent, resamples=400)

    @cached_property
    def headline(self) -> Headline:
        """What the scenario reports."""
        if self.scenario == "server":
            what = f"rate with p99 ≤ {self.bound_ms:g} ms"
            return Headline(self.rate_per_s, "queries/s", what, None)
        if self.scenario == "offline":
            answered = sum(self.window_queries) * self.images_per_query
            rate = answered / self.seconds if self.seconds else None
            return Headline(rate, "images/s", "throughput", None)
        percent = _REPORTED_PERCENT[self.scenario]
        value, interval = self.latency_ms(percent) or (None, None)
        return Headline(value, "ms", f"p{percent:g}", interval)

    @property
    def windows_apart(self) -> float | None:
        """How far the last three windows lie apart (median times; for Offline the queries
        answered), as a share; None when the run is too short to tell."""
        if self.scenario == "offline":
            return disagreement([float(count) for count in self.window_queries])
        return disagreement(window_medians(self.times_ms))
