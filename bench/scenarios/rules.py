"""MLPerf's four inference scenarios, scaled down to what a small machine does in a minute.

| scenario | queries | reported |
|---|---|---|
| SingleStream | one image, the next on the last answer (closed loop) | 90th percentile of latency |
| MultiStream | 8 images, the next on the last answer (closed loop) | 99th percentile of latency |
| Server | one image, Poisson arrivals (open loop) | highest rate whose p99 keeps the bound |
| Offline | all images at once | images per second |

Source: MLPerf Inference Rules, "Scenarios" (github.com/mlcommons/inference_policies). Theirs run
600 s and 24,576 (p90) or 270,336 (p99) queries; these run as long as :class:`ScenarioPlan` says,
and every row states its seconds and queries. The bound of 15 ms is theirs for ResNet-50. MLPerf has
no HTTP: over HTTP MultiStream is 8 requests at the same time, Offline a closed loop of many users.

This module has the rules and makes rows of runs; :mod:`bench.scenarios.in_process` and
:mod:`bench.scenarios.over_http` run them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.load.sent import Sent
from bench.measure.progress import Progress
from bench.rows.kinds.speed import Loop, Scenario, ScenarioMeasurement, Via
from bench.rows.packed import pack_times_us
from bench.statistics.rate_search import DEFAULT_SEARCH, RateTry, SearchPlan, search_rate
from bench.statistics.samples import percentile
from bench.statistics.stability import WINDOWS

IMAGES_PER_MULTI_STREAM_QUERY: Final = 8
KEPT_TIMES: Final = 20_000
"""Most times that a row keeps; a run with more keeps the last ones, and its counts say so."""


@dataclass(frozen=True)
class ScenarioPlan:
    """How long each scenario runs."""

    seconds: float = 5.0
    """Measured time of SingleStream, MultiStream and Offline."""
    warm_up_seconds: float = 1.0
    """Time before each run, thrown away."""
    try_seconds: float = 3.0
    """Measured time of each rate that Server tries."""
    try_warm_up_seconds: float = 0.5
    bound_ms: float = 15.0
    """Bound on Server's p99."""
    offline_batch_size: int = 32
    """Images in a batch, in process."""
    offline_users: int = 16
    """Concurrent users, over HTTP."""
    seed: int = 0
    search: SearchPlan = DEFAULT_SEARCH


QUICK_SCENARIO_PLAN: Final = ScenarioPlan(
    seconds=1.0,
    warm_up_seconds=0.2,
    try_seconds=1.0,
    try_warm_up_seconds=0.2,
    search=SearchPlan(growth=2, precision=0.2, tries=6, confirmations=4),
)


@dataclass(frozen=True)
class Setting:
    """Fields that all rows of one session share."""

    via: Via
    device: str
    plan: ScenarioPlan


def assess_try(sent: Sent, rate_per_s: float, plan: ScenarioPlan) -> RateTry:
    """Judge a rate: it held where everything was answered with a p99 within the bound.

    ``sent`` is without the warm-up.
    """
    p99_ms = sent.percentile_ms(99)
    held = sent.failed == 0 and p99_ms is not None and p99_ms <= plan.bound_ms
    return RateTry(round(rate_per_s, 3), sent.queries, sent.failed, p99_ms, held)


def describe(
    setting: Setting,
    scenario: Scenario,
    sent: Sent,
    *,
    warm_up_queries: int,
    images_per_query: int = 1,
    concurrency: int = 1,
    rate_per_s: float | None = None,
    tries: Sequence[RateTry] = (),
    cpu_share: float | None = None,
    span_s: tuple[float, float] | None = None,
) -> ScenarioMeasurement:
    """Make the row of a run.

    Args:
        sent: the queries without the warm-up.
        span_s: start and end of the measured time, where these are not the first query and the last
            answer.
    """
    loop: Loop = "open" if scenario == "server" else "closed"
    start = float(sent.due_s.min()) if sent.due_s.size else 0.0
    end = float(sent.done_s.max()) if sent.done_s.size else 0.0
    start, end = span_s or (start, end)
    done = sent.done_s[sent.succeeded] - start
    width = (end - start) / WINDOWS
    windows = np.bincount(
        np.minimum(done / width, WINDOWS - 1).astype(np.int64), minlength=WINDOWS
    ) if width > 0 else np.zeros(WINDOWS, np.int64)  # fmt: skip
    lag_ms = (sent.sent_s - sent.due_s) * 1e3
    return ScenarioMeasurement(
        scenario=scenario,
        via=setting.via,
        device=setting.device,
        loop=loop,
        images_per_query=images_per_query,
        concurrency=0 if loop == "open" else concurrency,
        warm_up_queries=warm_up_queries,
        seconds=round(end - start, 6),
        queries=sent.queries,
        failed=sent.failed,
        times_us=pack_times_us(sent.times_ms[-KEPT_TIMES:] * 1e3),
        window_queries=tuple(int(count) for count in windows),
        seed=setting.plan.seed,
        bound_ms=setting.plan.bound_ms if scenario == "server" else None,
        rate_per_s=rate_per_s,
        tries=tuple(tries),
        send_lag_p99_ms=(
            round(percentile(lag_ms, 99), 3) if loop == "open" and lag_ms.size else None
        ),
        generator_cpu_share=None if cpu_share is None else round(cpu_share, 4),
    )


Offer = Callable[[float, float, int], tuple[Sent, float | None]]
"""Runs an open loop at (queries per second, for seconds, with a seed); what was sent, and the load
generator's CPU share where it is measured."""


def search_server_rate(
    setting: Setting, offer: Offer, first_rate_per_s: float, progress: Progress
) -> ScenarioMeasurement:
    """The Server scenario: find the highest rate whose p99 keeps the bound. The row's times are
    those of the last try."""
    plan = setting.plan
    runs: list[tuple[Sent, int, float | None]] = []

    def attempt(rate_per_s: float) -> RateTry:
        progress(f"server, {rate_per_s:.0f} queries/s", len(runs), plan.search.tries)
        seconds = plan.try_warm_up_seconds + plan.try_seconds
        whole, cpu_share = offer(rate_per_s, seconds, plan.seed + len(runs))
        sent = whole.after(plan.try_warm_up_seconds)
        runs.append((sent, whole.queries - sent.queries, cpu_share))
        return assess_try(sent, rate_per_s, plan)

    found, tries = search_rate(attempt, first_rate_per_s, plan.search)
    sent, warm_up_queries, cpu_share = runs[-1]
    return describe(
        setting,
        "server",
        sent,
        warm_up_queries=warm_up_queries,
        rate_per_s=found.rate_per_s if found else None,
        tries=tries,
        cpu_share=cpu_share,
    )
