"""What every trial of ``cifar10 bench chaos`` shares: how much, what is gathered, and traffic."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from bench.load.client import NO_ANSWER, HttpClient
from bench.load.locust import encode_png
from bench.measure.progress import Progress, silent
from bench.rows.kinds.chaos import ChaosMeasurement
from bench.serving.process import Server

USERS: Final = 32
_PICTURES: Final = 64


@dataclass(frozen=True)
class ChaosPlan:
    """How much of each trial."""

    workers: int = 2
    kills: int = 5
    reloads: int = 5
    inputs: int = 100_000
    soak_seconds: float = 1_800.0
    seed: int = 20_240_601
    large_images: int = 5
    large_seconds: float = 10.0
    large_rounds: int = 3


@dataclass
class Trial:
    """What is gathered while one goes on."""

    name: str
    server: Server
    store: Path
    """Its models, which a trial may damage."""
    model: str
    plan: ChaosPlan
    progress: Progress = silent
    statuses: Counter[int] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def client(self) -> HttpClient:
        """Posts pictures of noise, the same each time."""
        chance = np.random.default_rng(self.plan.seed)
        pixels = chance.integers(0, 256, (_PICTURES, 32, 32, 3), np.uint8)
        return HttpClient(self.server.url, "/classify", [encode_png(one) for one in pixels])

    def weigh(self) -> None:
        """Note what the server's processes take now."""
        self.memory.append((round(time.monotonic() - self.began, 1), self.server.memory_bytes()))

    def result(self, figures: dict[str, float], promise: str, holds: bool) -> ChaosMeasurement:
        """What came of it."""
        return ChaosMeasurement(
            trial=self.name,
            workers=self.plan.workers,
            seconds=round(time.monotonic() - self.began, 1),
            status_counts={
                str(status) if status != NO_ANSWER else "no answer": count
                for status, count in sorted(self.statuses.items())
            },
            figures={name: round(value, 4) for name, value in figures.items()},
            memory_bytes=tuple(self.memory),
            promise=promise,
            holds=holds,
        )


@contextlib.asynccontextmanager
async def traffic(trial: Trial, users: int = USERS) -> AsyncIterator[None]:
    """``users`` clients that ask as fast as they are answered, on connections they keep."""
    client = trial.client()
    await client.open_connections(users)
    going = True

    async def user(number: int) -> None:
        while going:
            trial.statuses[await client.send(number)] += 1
            number += users

    async with asyncio.TaskGroup() as tasks:
        for first in range(users):
            tasks.create_task(user(first))
        try:
            yield
        finally:
            going = False
    client.close()
