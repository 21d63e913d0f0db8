"""Trial ``soak``: a long, steady load with continuous memory measurement."""

import asyncio
import contextlib
import time
from typing import Final

import numpy as np

from bench.chaos.traffic import USERS
from bench.chaos.trial import Trial, TrialRun, Verdict, growth
from bench.load.loops import closed_loop, open_loop

SHARE: Final = 0.7
"""Offered load over capacity."""
MEMORY_GROWTH: Final = 0.05
"""Promised bound on memory growth from the second quarter of a trial to its last."""
PROMISED_GROWTH: Final = (
    f"memory grows by less than {MEMORY_GROWTH:.0%} from the second quarter to the last"
)
_MEMORY_EVERY_SECONDS: Final = 5.0


async def soak(run: TrialRun) -> Verdict:
    """Send a steady load below capacity for a long time."""
    client, plan = run.client(), run.plan
    await client.open_connections(USERS)
    capacity_seconds = min(5.0, plan.soak_seconds)
    flat_out = await closed_loop(client.send, USERS, capacity_seconds)
    capacity = float(flat_out.succeeded.sum()) / capacity_seconds
    rate, run.began = SHARE * capacity, time.monotonic()

    async def send(number: int) -> int:
        status = await client.send(number)
        run.statuses[status] += 1
        return status

    async def watch() -> None:
        while True:
            run.weigh()
            run.progress("chaos: soak", int(run.memory[-1][0]), int(plan.soak_seconds))
            await asyncio.sleep(min(_MEMORY_EVERY_SECONDS, plan.soak_seconds / 20))

    watching = asyncio.ensure_future(watch())
    try:
        # Run in parts, so that the records of requests do not grow for half an hour.
        times = []
        left, part = plan.soak_seconds, 0
        while left > 0:
            seconds = min(60.0, left)
            sent = await open_loop(send, rate, seconds, seed=plan.seed + part)
            times.append(sent.times_ms.astype(np.float32))
            left, part = left - seconds, part + 1
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        client.close()
    run.weigh()
    every = np.concatenate(times) if times else np.zeros(1, np.float32)
    figures = {
        "capacity_requests_per_s": capacity,
        "offered_requests_per_s": rate,
        "failed_requests": float(run.not_ok),
        "p50_ms": float(np.percentile(every, 50)),
        "p99_ms": float(np.percentile(every, 99)),
        "worst_minute_p99_ms": max(
            (float(np.percentile(minute, 99)) for minute in times if minute.size), default=0.0
        ),
        "memory_growth_percent": 100 * growth(run.memory),
        "memory_last_mb": run.memory[-1][1] / 1e6,
    }
    return Verdict(figures, judge(figures))


def judge(figures: dict[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = []
    if figures["failed_requests"]:
        broken.append(f"{figures['failed_requests']:.0f} requests failed")
    if figures["memory_growth_percent"] >= 100 * MEMORY_GROWTH:
        broken.append(f"memory grew by {figures['memory_growth_percent']:.1f} %")
    return broken


TRIAL: Final = Trial(
    "soak",
    "A steady load for long",
    f"no request fails at {SHARE:.0%} of capacity; {PROMISED_GROWTH}",
    soak,
    own_core=True,
)
