"""The most requests per second that each load generator can send: a closed loop against a server
that does nothing."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.bodies import encode_png
from bench.load.client import HttpClient
from bench.load.drive import Driven, Driver
from bench.load.locust import LoadPlan, run_locust
from bench.measure.progress import Progress, silent
from bench.serving.process import Server

NULL_SERVER: Final = (sys.executable, "-m", "bench.serving.null_server", "{port}")
_IMAGES: Final = 100


@dataclass(frozen=True)
class Ceiling:
    """The most that one generator reached."""

    generator: str
    """``locust`` or ``asyncio``."""
    users: int
    processes: int
    request_rate: float
    """Successful answers per second."""
    p50_ms: float
    cpu_share: float
    """CPU time over wall time, per process."""


def measure_ceilings(
    images: NDArray[np.uint8],
    *,
    users: int = 16,
    seconds: float = 3.0,
    processes: int = 1,
    progress: Progress = silent,
    command: Sequence[str] = NULL_SERVER,
) -> list[Ceiling]:
    """Drive the server with both generators, one after the other.

    Raises:
        BenchError: the server or Locust did not run.
    """
    images = images[:_IMAGES]
    with Server(Path(), command=command) as server:
        progress("ceiling: asyncio", 0, 2)
        client = HttpClient(server.url, "/classify", [encode_png(image) for image in images])
        driven = Driver(client, server.check_alive).closed(users, seconds)
        progress("ceiling: locust", 1, 2)
        plan = LoadPlan(users, seconds, warm_up_seconds=0, processes=processes)
        locusts, _ = run_locust(server.url, images, plan, check=server.check_alive)
    return [
        _ceiling("asyncio", users, 1, driven, seconds),
        _ceiling("locust", users, processes, locusts, float(locusts.sent.done_s.max())),
    ]


def _ceiling(generator: str, users: int, processes: int, driven: Driven, seconds: float) -> Ceiling:
    return Ceiling(
        generator,
        users,
        processes,
        round(driven.sent.request_rate(seconds), 1),
        driven.sent.percentile_ms(50) or 0.0,
        round(driven.cpu_share, 3),
    )
