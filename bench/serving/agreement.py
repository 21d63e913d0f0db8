"""``python -m bench agree``: do Locust, our generator and the server's own metrics tell the same?

At half of what a closed loop has just reached, with Poisson arrivals, the two generators take
turns. Compared are

- the **count**: requests answered with a 200, nothing left out, against the growth of the server's
  own counter; these must be equal;
- the **p50** of the two generators, from the actual send to the answer (Locust knows no intended
  send time), within 10 %;
- the **server's histogram**: it has buckets and knows only the time inside the server, so all that
  can be said is whether a client was faster than the server says it was, which cannot be.

When the two p50s differ, the server's own mean time says who is to blame. Where it differs as much,
the server really was slower in those runs: the machine drifted, or that generator took CPU from it.
Else the slower generator is wrong, by its own time: it can only add to a request's.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.client import HttpClient
from bench.load.locust import LoadPlan, drive, encode_png
from bench.load.loops import Sent, closed_loop, open_loop, run_timed
from bench.measure.progress import Progress, silent
from bench.peers.ceiling import Ceiling
from bench.rows.kinds.scenario import AgreementMeasurement, GeneratorCount
from bench.rows.packed import pack_times_us, unpack_times_us
from bench.serving.load import IMAGE_COUNT, classify_route
from bench.serving.server_metrics import (
    ServerFigures,
    finite,
    infinite,
    median_bucket_ms,
    read_server,
)
from bench.statistics.samples import percentile
from cifar10.errors import BenchError

P50_TOLERANCE: Final = 0.10
CEILING_SHARE: Final = 0.7
"""A generator driven above this share of its own ceiling is no witness."""
BUSY_SHARE: Final = 0.9
_USERS: Final = 32
_CAPACITY_USERS: Final = 16
_OK: Final = 200


@dataclass(frozen=True)
class AgreementPlan:
    """How long the generators are compared."""

    capacity_seconds: float = 3.0
    rounds: int = 3
    seconds: float = 8.0
    """Of one run of one generator."""
    seed: int = 0


@dataclass(frozen=True)
class RoundResult:
    """One run of one generator."""

    answered: int
    times_ms: NDArray[np.float64]
    cpu_share: float


Drive = Callable[[float, int], RoundResult]
"""Sends at so many requests per second, with a seed."""


def measure_agreement(
    url: str,
    images: NDArray[np.uint8],
    plan: AgreementPlan,
    *,
    model: str | None,
    device: str,
    ceilings: Sequence[Ceiling] = (),
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> AgreementMeasurement:
    """Compare the generators on one running service that nobody else uses.

    Raises:
        BenchError: the server died, answered nothing, or has no metrics.
    """
    images = images[:IMAGE_COUNT]
    bodies = [encode_png(image) for image in images]
    route = classify_route(model)
    read_server(url)  # before any work: without metrics there is nothing to compare

    def with_ours(rate_per_s: float, seed: int) -> RoundResult:
        async def work() -> Sent:
            client = HttpClient(url, route, bodies)
            await client.open_connections(_USERS)
            try:
                return await open_loop(
                    client.send, rate_per_s, plan.seconds, seed=seed, check=check
                )
            finally:
                client.close()

        sent, cpu_share = run_timed(work())
        return RoundResult(int(sent.succeeded.sum()), sent.service_times_ms, cpu_share)

    def with_locust(rate_per_s: float, seed: int) -> RoundResult:
        load = LoadPlan(_USERS, plan.seconds, warm_up_seconds=0, rate_per_s=rate_per_s)
        raw = drive(url, images, load, route=route, check=check)
        if raw.interrupted:
            raise KeyboardInterrupt
        good = raw.status == _OK
        return RoundResult(int(good.sum()), raw.response_ms[good], raw.cpu_s / raw.wall_s)

    async def full_speed() -> Sent:
        client = HttpClient(url, route, bodies)
        try:
            return await closed_loop(
                client.send, _CAPACITY_USERS, 1 + plan.capacity_seconds, check=check
            )
        finally:
            client.close()

    progress("capacity", 0, 1 + 2 * plan.rounds)
    sent = run_timed(full_speed())[0].after(1)
    if not sent.succeeded.any():
        message = f"{url} answered no request"
        raise BenchError(message)
    capacity = int(sent.succeeded.sum()) / float(sent.done_s.max() - sent.due_s.min())
    return compare_generators(
        {"asyncio": with_ours, "locust": with_locust},
        lambda: read_server(url),
        capacity,
        plan,
        device=device,
        ceilings=ceilings,
        progress=progress,
    )


def compare_generators(
    generators: dict[str, Drive],
    read: Callable[[], ServerFigures],
    capacity_per_s: float,
    plan: AgreementPlan,
    *,
    device: str,
    ceilings: Sequence[Ceiling] = (),
    progress: Progress = silent,
) -> AgreementMeasurement:
    """Let them take turns, and read the server before and after each."""
    rate_per_s = capacity_per_s / 2
    totals = {
        name: GeneratorCount(name, 0, 0, "", (), 0.0, 0.0, _ceiling(ceilings, name))
        for name in generators
    }
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in generators}
    for number in range(plan.rounds):
        for position, (name, drive_it) in enumerate(generators.items()):
            step = 1 + number * len(generators) + position
            progress(f"agree: {name}, round {number + 1}", step, 1 + plan.rounds * len(generators))
            before = read()
            result = drive_it(rate_per_s, plan.seed + number)
            grown = read().since(before)
            times[name].append(result.times_ms)
            old = totals[name]
            edges = dict(old.server_buckets)
            totals[name] = dataclasses.replace(
                old,
                requests=old.requests + result.answered,
                server_requests=old.server_requests + grown.answered,
                server_buckets=tuple(
                    (edge, count + edges.get(edge, 0)) for edge, count in finite(grown.buckets)
                ),
                server_sum_s=round(old.server_sum_s + grown.sum_s, 6),
                cpu_share=round(max(old.cpu_share, result.cpu_share), 4),
            )
    return AgreementMeasurement(
        device=device,
        rate_per_s=round(rate_per_s, 2),
        capacity_per_s=round(capacity_per_s, 2),
        rounds=plan.rounds,
        seconds=plan.seconds,
        seed=plan.seed,
        counts=tuple(
            dataclasses.replace(
                totals[name], times_us=pack_times_us(np.concatenate(times[name]) * 1e3)
            )
            for name in generators
        ),
    )


def _ceiling(ceilings: Sequence[Ceiling], name: str) -> float | None:
    return next((found.rate_per_s for found in ceilings if found.generator == name), None)


def p50_ms(count: GeneratorCount) -> float:
    """The client's median, from the actual send."""
    return percentile(unpack_times_us(count.times_us), 50) / 1e3


def server_p50_bucket_ms(count: GeneratorCount) -> tuple[float, float] | None:
    """The histogram bucket that the server's median is in."""
    return median_bucket_ms(infinite(count.server_buckets))


def disagreements(measurement: AgreementMeasurement) -> list[str]:
    """Everything that does not agree, and which side is wrong; empty when all agree."""
    found = []
    for count in measurement.counts:
        if count.requests != count.server_requests:
            missing = count.server_requests - count.requests
            why = (
                "the server answered requests that this generator did not count: it was stopped "
                "with answers on their way, or someone else uses the server"
                if missing > 0
                else "the server's counter is wrong: these requests have their 200"
            )
            found.append(
                f"{count.generator} counts {count.requests} requests, "
                f"the server {count.server_requests}: {why}"
            )
        bucket = server_p50_bucket_ms(count)
        if count.requests and bucket is not None and p50_ms(count) < bucket[0]:
            found.append(
                f"{count.generator}'s p50 of {p50_ms(count):.3g} ms is below the server's own "
                f"(at least {bucket[0]:.3g} ms): its clock is wrong"
            )
    return found + _p50_disagreement(measurement)


def _p50_disagreement(measurement: AgreementMeasurement) -> list[str]:
    measured = [count for count in measurement.counts if count.requests]
    if len(measured) < len(measurement.counts) or len(measured) < 2:
        return [f"{count.generator} got no answer" for count in measurement.counts if
                not count.requests]  # fmt: skip
    fast, *_, slow = sorted(measured, key=p50_ms)
    apart = p50_ms(slow) / p50_ms(fast) - 1
    if apart <= P50_TOLERANCE:
        return []
    ratio = _server_mean_ms(slow) / _server_mean_ms(fast) if _server_mean_ms(fast) else 1.0
    difference = (
        f"p50 is {p50_ms(slow):.3g} ms by {slow.generator} and {p50_ms(fast):.3g} ms by "
        f"{fast.generator} ({apart:+.0%}): "
    )
    if (1 + apart) / ratio <= 1 + P50_TOLERANCE and ratio > 1:
        return [
            f"{difference}neither is wrong, the server itself took {_server_mean_ms(slow):.3g} ms "
            f"on average in {slow.generator}'s runs and {_server_mean_ms(fast):.3g} ms in "
            f"{fast.generator}'s: the machine was not the same, or {slow.generator} took CPU from "
            "the server; measure again, longer or on a quiet machine"
        ]
    limits = [
        f"{count.generator} was at {share:.0%} of its own ceiling"
        for count in measured
        if count.ceiling_per_s
        and (share := measurement.rate_per_s / count.ceiling_per_s) > CEILING_SHARE
    ] + [
        f"{count.generator} used {count.cpu_share:.0%} of its core"
        for count in measured
        if count.cpu_share > BUSY_SHARE
    ]
    extra_us = 1e3 * (p50_ms(slow) - p50_ms(fast))
    why = "; ".join(limits) or (
        f"it spends about {extra_us:.0f} µs more of its own on a request "
        f"(CPU {slow.cpu_share:.0%} of a core against {fast.cpu_share:.0%})"
    )
    return [f"{difference}{slow.generator} is wrong, for a generator can only add time; {why}"]


def _server_mean_ms(count: GeneratorCount) -> float:
    return 1e3 * count.server_sum_s / count.server_requests if count.server_requests else 0.0


def agrees(measurement: AgreementMeasurement) -> bool:
    """Whether counts are equal and the p50s within 10 %."""
    return not disagreements(measurement)
