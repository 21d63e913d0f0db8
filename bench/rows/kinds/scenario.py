"""Rows of scenarios. See :mod:`bench.rows.kinds.measurements`."""

from dataclasses import dataclass
from typing import Literal

from bench.statistics.rate_search import RateTry

Scenario = Literal["single_stream", "multi_stream", "server", "offline"]
Via = Literal["in process", "http"]
Loop = Literal["open", "closed"]


@dataclass(frozen=True)
class ScenarioMeasurement:
    """One MLPerf scenario, scaled down: ``queries`` and ``seconds`` state the scale."""

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
    """Made before and thrown away."""
    seconds: float
    """Measured time, to the last answer."""
    queries: int
    """In that time, the failed ones included."""
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
    """Over HTTP: CPU time over wall time of the generator."""

    @property
    def key(self) -> str:
        """Tells apart the scenarios of one model."""
        return f"{self.scenario} via={self.via} device={self.device}"
