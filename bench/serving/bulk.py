"""Many images in one request, against the same model in process (``bench bulk``).

The server has one core. In its pauses this process takes that core, runs ONNX Runtime on the same
images there, and goes back to its own to drive the server: so both are measured on the same core.
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
from bench.measure.in_process import Open
from bench.measure.latency import Executor
from bench.measure.progress import Progress, labelled, silent
from bench.measure.survey import RunOutcome, Survey, in_turns
from bench.rows.files import Recorder
from bench.rows.kinds.service import DEFAULT_MAX_BATCH, BulkMeasurement
from bench.rows.row import Row
from bench.serving.cores import Cores, choose_cores, on_cores, pinned
from bench.serving.process import SERVE, Server
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.store import ModelStore

_CONNECTIONS: Final = 2
"""One request is on its way while the other is answered."""
_WARM_UP_RUNS: Final = 2
_PATIENCE_SECONDS: Final = 600.0
"""Timeout of one request, and the service's deadline: 256 images take the largest models a minute,
and throughput is measured, not the deadline."""
_SETTINGS: Final = {
    "CIFAR10_WORKERS": "1",
    "CIFAR10_DEADLINE_SECONDS": f"{_PATIENCE_SECONDS:g}",
}

Way = Callable[[float], float]
"""Runs one way for some seconds; its images per second."""


@dataclass(frozen=True)
class BulkPlan:
    """How much is measured."""

    images: int = 256
    rounds: int = 5
    seconds: float = 3.0
    """Duration of each way in each round."""


QUICK_BULK_PLAN: Final = BulkPlan(rounds=2, seconds=0.5)


def measured_in(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """(model, digest) of each model that these rows have measured."""
    return {(row.model, row.digest) for row in rows if isinstance(row.measurement, BulkMeasurement)}


def measure_bulk(
    store: ModelStore,
    names: Sequence[str],
    dataset: Dataset,
    recorder: Recorder,
    *,
    open_model: Open,
    plan: BulkPlan = BulkPlan(),
    cores: Cores | None = None,
    command: Sequence[str] = SERVE,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure the models named and record it; what fails is a row.

    Args:
        store: the models.
        names: those to measure.
        dataset: its first test images are the ones sent.
        recorder: gets the rows.
        open_model: makes a model ready, in process.
        plan: how much.
        cores: the CPUs of server and load generator (default: the first and the last).
        command: what starts the service: tests give another.
        progress: told how far this is.

    Raises:
        BenchError: a row could not be written, or the machine has no two CPUs.
    """
    cores = cores or choose_cores()
    images = np.ascontiguousarray(dataset.test.images[: plan.images])
    with Survey(recorder) as survey:
        for name in names:
            with survey.attempt(name, "bulk") as subject:
                stored = subject.load(store)
                with pinned(cores.server):
                    executor = open_model(stored)
                told = labelled(f"bulk: {name}", progress)
                found = _measure(store.root, name, executor, images, plan, cores, command, told)
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
        for way in ways.values():  # a warm-up
            way(plan.seconds / 4)
        rates = in_rounds(ways, plan, progress)
    return BulkMeasurement(
        device="cpu",
        images=len(images),
        connections=_CONNECTIONS,
        seconds=plan.seconds,
        chunk_images=DEFAULT_MAX_BATCH,
        **{way: tuple(found) for way, found in rates.items()},
    )


def in_rounds(
    ways: dict[str, Way], plan: BulkPlan, progress: Progress = silent
) -> dict[str, list[float]]:
    """Images per second of each way in each round, the ways in turns."""
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
    """Images per second of running them again and again, ``size`` at a time, on one core."""
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
    """Images per second of a closed loop of whole requests, over the time to the last answer."""
    sent = driver.closed(_CONNECTIONS, seconds).sent
    if sent.failed or not sent.queries:
        message = f"{sent.failed} of {sent.queries} requests failed"
        raise BenchError(message)
    return images * sent.queries / float(sent.done_s.max())
