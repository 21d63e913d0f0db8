"""``cifar10 bench bulk``: many images in one request, against the same model in process.

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
from bench.load.loops import Sent, closed_loop, run
from bench.measure.in_process import Open
from bench.measure.latency import Executor
from bench.measure.progress import Progress, labelled, silent
from bench.measure.survey import RunOutcome
from bench.rows.files import Recorder, Row
from bench.rows.kinds.peer import BulkMeasurement
from bench.serving.cores import Cores, choose_cores, on_cores, pinned
from bench.serving.process import DEFAULT_MAX_BATCH, SERVE, Server
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.store import ModelStore

_CONNECTIONS: Final = 2
"""One request is on its way while the other is answered."""
_WARM_UP_RUNS: Final = 2
_PATIENCE_SECONDS: Final = 600.0
"""For one request: 256 images are a minute's work for the largest models. What is measured is how
much is answered, and not when the service's deadline would have ended it."""

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
    """Of each way in each round."""


QUICK_BULK_PLAN: Final = BulkPlan(rounds=2, seconds=0.5)


def measured_in(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """(model, digest) of each that has been measured."""
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
        store: where they are.
        names: which ones.
        dataset: its first test images are the ones sent.
        recorder: gets the rows.
        open_model: makes a model ready, in process.
        plan: how much.
        cores: which CPU is whose (default: the first and the last).
        command: what starts the service: tests give another.
        progress: told how far this is.

    Raises:
        BenchError: a row could not be written, or the machine has no two CPUs.
    """
    outcome = RunOutcome()
    cores = cores or choose_cores()
    images = np.ascontiguousarray(dataset.test.images[: plan.images])
    try:
        for name in names:
            digest = ""
            try:
                stored = store.load(name)
                digest = stored.card.sha256
                with pinned(cores.server):
                    executor = open_model(stored)
                found = _measure(store.root, name, executor, images, plan, cores, command, progress)
            except Exception as error:  # any reason is that model's failure row
                recorder.add_failure(name, digest, "bulk", error)
                outcome.failed[name] = f"failed at bulk: {error}"
                continue
            recorder.add(name, digest, None, found)
            outcome.measured.append(name)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


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
    with (
        pinned(cores.generator),
        Server(
            models, load=(name,), device="cpu", command=pinned_command, settings=_SETTINGS
        ) as server,
    ):
        ways: dict[str, Way] = {
            "in_process": lambda s: in_process(executor, images, len(images), s, cores.server),
            "in_process_chunks": lambda s: in_process(
                executor, images, DEFAULT_MAX_BATCH, s, cores.server
            ),
            "classify_batch": lambda s: _over_http(
                server,
                HttpClient(
                    server.url,
                    "/classify/batch",
                    [encode_npy(images)],
                    "application/x-npy",
                    timeout_seconds=_PATIENCE_SECONDS,
                ),
                len(images),
                s,
            ),
            "v2_infer": lambda s: _over_http(
                server, _v2_client(server.url, name, images), len(images), s
            ),
        }
        for way in ways.values():  # a warm-up
            way(plan.seconds / 4)
        rates = in_rounds(ways, plan, labelled(f"bulk: {name}", progress))
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
    """Each way in each round; every second round backwards."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(plan.rounds):
        progress("bulk", number, plan.rounds)
        ordered = list(ways.items())
        for name, way in ordered if number % 2 == 0 else ordered[::-1]:
            rates[name].append(round(way(plan.seconds), 1))
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


def _v2_client(url: str, name: str, images: NDArray[np.uint8]) -> HttpClient:
    header = v2_header(*images.shape)
    return HttpClient(
        url,
        f"/v2/models/{name}/infer",
        [header + images.tobytes()],
        "application/octet-stream",
        {V2_HEADER_LENGTH: str(len(header))},
        timeout_seconds=_PATIENCE_SECONDS,
    )


def _over_http(server: Server, client: HttpClient, images: int, seconds: float) -> float:
    """Images per second of a closed loop: whole requests, over the time to the last answer."""

    async def work() -> Sent:
        await client.open_connections(_CONNECTIONS)
        try:
            return await closed_loop(client.send, _CONNECTIONS, seconds, check=server.check_alive)
        finally:
            client.close()

    sent = run(work())
    if not sent.succeeded.all() or not sent.succeeded.size:
        message = f"{int((~sent.succeeded).sum())} of {sent.succeeded.size} requests failed"
        raise BenchError(message)
    return images * sent.succeeded.size / float(sent.done_s.max())
