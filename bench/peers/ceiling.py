"""What each load generator itself can do: closed loop, against a server that does nothing."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.client import HttpClient
from bench.load.locust import LoadPlan, drive, encode_png
from bench.load.loops import Sent, closed_loop, run_timed
from bench.measure.progress import Progress, silent
from bench.serving.process import Server
from bench.statistics.samples import percentile

TRIVIAL: Final = (sys.executable, "-m", "bench.serving.null_server", "{port}")
_IMAGES: Final = 100


@dataclass(frozen=True)
class Ceiling:
    """The most that one generator reached."""

    generator: str
    """``locust`` or ``asyncio``."""
    users: int
    processes: int
    rate_per_s: float
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
    command: Sequence[str] = TRIVIAL,
) -> list[Ceiling]:
    """Both generators, one after the other.

    Raises:
        BenchError: the trivial server or Locust did not run.
    """
    bodies = [encode_png(image) for image in images[:_IMAGES]]
    with Server(Path(), command=command) as server:

        async def ours() -> Sent:
            client = HttpClient(server.url, "/classify", bodies)
            await client.open_connections(users)
            try:
                return await closed_loop(client.send, users, seconds, check=server.check_alive)
            finally:
                client.close()

        progress("ceiling: asyncio", 0, 2)
        sent, cpu_share = run_timed(ours())
        ceiling = Ceiling(
            "asyncio",
            users,
            1,
            round(sent.times_ms.size / float(sent.done_s.max()), 1),
            round(percentile(sent.times_ms, 50), 3),
            round(cpu_share, 3),
        )
        plan = LoadPlan(users, seconds, warm_up_seconds=0, processes=processes)
        progress("ceiling: locust", 1, 2)
        raw = drive(server.url, images[:_IMAGES], plan, check=server.check_alive)
    good = raw.status == 200
    ended = raw.start_s + raw.response_ms / 1e3
    span_s = float(ended.max() - raw.start_s.min())
    return [
        ceiling,
        Ceiling(
            "locust",
            users,
            processes,
            round(int(good.sum()) / span_s, 1),
            round(percentile(raw.response_ms[good], 50), 3),
            round(raw.cpu_s / raw.wall_s, 3),
        ),
    ]
