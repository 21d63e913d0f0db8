"""Ordinary clients that run during a fault or attack, and how it affects them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.chaos.large import photos_of
from bench.chaos.traffic import ordinary, percentile_ms
from bench.chaos.trial import TrialRun, undesigned
from bench.load.client import HttpClient
from cifar10.golden import golden_images

SLOWER: Final = 5.0
"""Promised bound on the slowdown: p99 of ordinary clients under attack over p99 without it."""
MEMORY_BACK: Final = 0.2
"""Promised recovery: a minute after the attack, memory is within this share of its earlier size."""
_WARM_UP_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.5
_PHOTOS_PER_SECOND: Final = 2.0


@dataclass
class _Stream:
    """One kind of ordinary client."""

    name: str
    client: HttpClient
    per_second: float
    alone: list[NDArray[np.float64]] = field(default_factory=list)
    attacked: list[NDArray[np.float64]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


class Bystanders:
    """Clients that send small images, and optionally photos, at a steady rate."""

    def __init__(
        self, run: TrialRun, *, photos: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        self._run = run
        small = run.client(headers=headers)
        self._streams = [_Stream("small", small, run.plan.ordinary_per_second)]
        if photos:
            pictures = photos_of(golden_images()[:1], run.plan.seed)
            client = HttpClient(run.server.url, "/classify", pictures, "image/jpeg", headers)
            self._streams.append(_Stream("photo", client, _PHOTOS_PER_SECOND))

    async def warm_up(self) -> int:
        """Send for a few seconds without recording times; return the memory in bytes afterwards."""
        await self._send(_WARM_UP_SECONDS, 0)
        return self._run.weigh()

    async def alone(self, seconds: float, seed: int) -> None:
        """Send for ``seconds`` without a fault or attack."""
        for stream, times in zip(self._streams, await self._send(seconds, seed), strict=True):
            stream.alone.append(times)

    async def attacked(self, seconds: float, seed: int) -> None:
        """Send for ``seconds`` during the fault or attack."""
        for stream, times in zip(self._streams, await self._send(seconds, seed), strict=True):
            stream.attacked.append(times)

    async def untimed(self, seconds: float, seed: int) -> None:
        """Send for ``seconds`` during a known slowdown, such as a worker's start, and record only
        failures."""
        await self._send(seconds, seed)

    async def _send(self, seconds: float, seed: int) -> list[NDArray[np.float64]]:
        return list(
            await asyncio.gather(
                *(
                    ordinary(
                        stream.client,
                        stream.per_second,
                        seconds,
                        seed=seed + 1_000 * number,
                        statuses=stream.statuses,
                    )
                    for number, stream in enumerate(self._streams)
                )
            )
        )

    def close(self) -> dict[str, float]:
        """Close the connections and return the figures; the statuses are added to the trial's."""
        for stream in self._streams:
            stream.client.close()
            self._run.statuses.update(stream.statuses)
        statuses = [stream.statuses for stream in self._streams]
        return {
            "other_requests": float(sum(one.total() for one in statuses)),
            "other_requests_refused": float(sum(one.total() - one[200] for one in statuses)),
            "other_requests_failed": float(sum(undesigned(one) for one in statuses)),
            **{
                f"{stream.name}_p{share}_{window}_ms": percentile_ms(times, share)
                for stream in self._streams
                for window, times in (("alone", stream.alone), ("attacked", stream.attacked))
                for share in (50, 99)
            },
        }


def judge_times(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise to ordinary clients."""
    broken = []
    if figures["other_requests_failed"]:
        broken.append(
            f"{figures['other_requests_failed']:.0f} requests of other clients got no answer, or a "
            "5xx that is not by design"
        )
    for kind in ("small", "photo"):
        alone = figures.get(f"{kind}_p99_alone_ms")
        attacked = figures.get(f"{kind}_p99_attacked_ms")
        if alone is not None and attacked is not None and attacked > SLOWER * alone:
            broken.append(
                f"{kind} requests: p99 of {attacked:.1f} ms under attack, {alone:.1f} ms alone"
            )
    return broken


def judge_memory(figures: Mapping[str, float]) -> list[str]:
    """Return the broken promise about memory, if memory has not recovered."""
    before, after = figures["memory_before_mb"], figures["memory_after_mb"]
    if after <= (1 + MEMORY_BACK) * before:
        return []
    return [f"memory of {after:.0f} MB afterwards, {before:.0f} MB before"]


async def settle(run: TrialRun, baseline: int) -> dict[str, float]:
    """Wait until memory has recovered, as long as the plan allows; return its size."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while True:
        size = await asyncio.to_thread(run.weigh)
        passed = loop.time() - start
        if size <= (1 + MEMORY_BACK) * baseline or passed > run.plan.settle_seconds:
            return {
                "memory_before_mb": baseline / 1e6,
                "memory_after_mb": size / 1e6,
                "memory_settled_after_s": passed,
            }
        await asyncio.sleep(_LOOK_SECONDS)


@contextlib.asynccontextmanager
async def weighing(run: TrialRun) -> AsyncIterator[list[int]]:
    """Measure memory twice a second inside the ``with`` block; yield the sizes in bytes."""
    sizes: list[int] = []

    async def watch() -> None:
        while True:
            sizes.append(await asyncio.to_thread(run.weigh))
            await asyncio.sleep(_LOOK_SECONDS)

    watching = asyncio.ensure_future(watch())
    try:
        yield sizes
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
