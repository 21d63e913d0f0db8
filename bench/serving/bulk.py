"""Compare requests with many images with the same model in process (``bench bulk``).

The server has one core. While it is idle, this process moves to that core and runs ONNX Runtime on
the same images, then returns to its own core to drive the server. Both are thus measured on the
same core.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.bodies import V2_HEADER_LENGTH, encode_npy, v2_header
from bench.load.client import HttpClient
from bench.load.drive import Driver
from bench.measure.latency import Executor
from bench.measure.progress import Progress, labelled, silent
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Survey, in_turns
from bench.rows.kinds.service import DEFAULT_MAX_BATCH, BulkMeasurement
from bench.rows.row import Row
from bench.serving.cores import Cores, choose_cores, on_cores, pinned
from bench.serving.process import SERVE, Server, device_named
from cifar10.errors import BenchError

_CONNECTIONS: Final = 2
"""Number of connections: one request is in transit while the other is processed."""
_WARM_UP_RUNS: Final = 2
_PATIENCE_SECONDS: Final = 600.0
"""Timeout of a request, and the service's deadline, in seconds.

The largest models take a minute for 256 images; throughput is measured here, not the deadline.
"""
_SETTINGS: Final = {
    "CIFAR10_WORKERS": "1",
    "CIFAR10_DEADLINE_SECONDS": f"{_PATIENCE_SECONDS:g}",
}

Way = Callable[[float], float]
"""Function that runs one way for some seconds and returns its images per second."""


@dataclass(frozen=True)
class BulkPlan:
    """Sizes and durations of the measurement."""

    images: int = 256
    rounds: int = 5
    seconds: float = 3.0
    """Duration of each measurement in each round."""


QUICK_BULK_PLAN: Final = BulkPlan(rounds=2, seconds=0.5)


def measured_in(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Return (model, digest) for each model measured in these rows."""
    return {(row.model, row.digest) for row in rows if isinstance(row.measurement, BulkMeasurement)}


@by_dataset
def measure_bulk(
    setup: Setup,
    names: Sequence[str],
    plan: BulkPlan = BulkPlan(),
    *,
    cores: Cores | None = None,
    command: Sequence[str] = SERVE,
) -> RunOutcome:
    """Measure and record the named models; a failure is recorded as a row.

    Args:
        cores: CPUs of server and load generator (default: the first and the last).
        command: command that starts the service; tests replace it.

    Raises:
        BenchError: a row could not be written, or the machine has fewer than two CPUs.
    """
    cores = cores or choose_cores()
    images = np.ascontiguousarray(setup.images(plan.images))
    with Survey(setup.recorder) as survey:
        for name in names:
            with survey.attempt(name, "bulk") as subject:
                stored = subject.load(setup.store)
                with pinned(cores.server):
                    executor = setup.open_model(stored)
                told = labelled(f"bulk: {name}", setup.progress)
                found = _measure(
                    setup.store.root, name, executor, images, plan, cores, command, told
                )
                subject.add(found)
    return survey.outcome


def _measure(
    models: Path,
    name: str,
    executor: Executor,
    images: NDArray[np.uint8],
    plan: BulkPlan,
    cores: Cores,
    command: Sequence[str],
    progress: Progress,
) -> BulkMeasurement:
    pinned_command = [*on_cores((cores.server,)), *command]
    server = Server(models, load=(name,), device="cpu", command=pinned_command, settings=_SETTINGS)
    with pinned(cores.generator), server:

        def in_this_process(size: int) -> Way:
            return lambda seconds: in_process(executor, images, size, seconds, cores.server)

        def over_http(route: str, body: bytes, kind: str, headers: dict[str, str]) -> Way:
            client = HttpClient(
                server.url, route, [body], kind, headers, timeout_seconds=_PATIENCE_SECONDS
            )
            driver = Driver(client, server.check_alive)
            return lambda seconds: _images_per_second(driver, len(images), seconds)

        header = v2_header(*images.shape)
        ways = {
            "in_process": in_this_process(len(images)),
            "in_process_chunks": in_this_process(DEFAULT_MAX_BATCH),
            "classify_batch": over_http(
                "/classify/batch", encode_npy(images), "application/x-npy", {}
            ),
            "v2_infer": over_http(
                f"/v2/models/{name}/infer",
                header + images.tobytes(),
                "application/octet-stream",
                {V2_HEADER_LENGTH: str(len(header))},
            ),
        }
        for way in ways.values():  # warm-up
            way(plan.seconds / 4)
        rates = in_rounds(ways, plan, progress)
    return BulkMeasurement(
        device=device_named("cpu"),
        images=len(images),
        connections=_CONNECTIONS,
        seconds=plan.seconds,
        chunk_images=DEFAULT_MAX_BATCH,
        **{way: tuple(found) for way, found in rates.items()},
    )


def in_rounds(
    ways: dict[str, Way], plan: BulkPlan, progress: Progress = silent
) -> dict[str, list[float]]:
    """Return the images per second of each way in each round, with the ways interleaved."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in in_turns(list(ways), plan.rounds):
        progress("bulk", number - 1, plan.rounds)
        rates[name].append(round(ways[name](plan.seconds), 1))
    return rates


def in_process(
    executor: Executor,
    images: NDArray[np.uint8],
    size: int,
    seconds: float,
    core: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return a way that runs the model repeatedly, ``size`` images at a time, on one core."""
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    with pinned(core):
        for _ in range(_WARM_UP_RUNS):
            executor.predict(chunks[0])
        done, started = 0, clock()
        while (passed := clock() - started) < seconds:
            for chunk in chunks:
                executor.predict(chunk)
            done += len(images)
    return done / passed


def _images_per_second(driver: Driver, images: int, seconds: float) -> float:
    """Return the images per second of a closed loop of whole requests, up to the last response."""
    sent = driver.closed(_CONNECTIONS, seconds).sent
    if sent.failed or not sent.queries:
        message = f"{sent.failed} of {sent.queries} requests failed"
        raise BenchError(message)
    return images * sent.queries / float(sent.done_s.max())
