"""Memory, start-up and energy, each model in fresh processes (``bench resources``).

Memory and start-up are those of a process with this project's predictor and nothing else: less than
a server needs, and the same for every model, so that models can be compared.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.measure.energy import Meter, find_meter
from bench.measure.in_process import Open
from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome, Survey
from bench.rows.files import Recorder
from bench.rows.kinds.cost import ResourceMeasurement, StartSample
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError
from cifar10.labels import IMAGE_SHAPE
from cifar10.store import ONNX_FILE, ModelStore

STARTS: Final = 3
PEAK_BATCH_SIZE: Final = 32
ENERGY_SECONDS: Final = 3.0
_PROBE_TIMEOUT_SECONDS: Final = 300


@dataclass(frozen=True)
class Energy:
    """A meter's reading while images were classified back to back."""

    source: str | None
    joules: float | None
    images: int
    seconds: float


def measure_resources(
    store: ModelStore,
    names: Sequence[str],
    recorder: Recorder,
    *,
    open_model: Open,
    device: str = "auto",
    threads: int = 1,
    starts: int = STARTS,
    energy_seconds: float = ENERGY_SECONDS,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure the models named and record everything.

    Args:
        store: the models.
        names: those to measure.
        recorder: gets the rows.
        open_model: makes a model ready, for the energy; what it raises becomes a failure row.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: inside one operator.
        starts: fresh processes for each model.
        energy_seconds: how long the meter runs, where there is one.
        progress: told how far this is.

    Raises:
        BenchError: a row could not be written.
    """
    with Survey(recorder) as survey:
        for position, name in enumerate(names):
            progress(f"resources: {name}", position, len(names))
            with survey.attempt(name, "resources") as subject:
                stored = subject.load(store)
                path = store.folder(name) / ONNX_FILE
                answers = [_probe(path, device, threads) for _ in range(starts)]
                provider = answers[0]["provider"]
                energy = measure_energy(open_model(stored), find_meter(provider), energy_seconds)
                found = ResourceMeasurement(
                    provider=provider,
                    threads=threads,
                    starts=tuple(StartSample(**answer["start"]) for answer in answers),
                    peak_batch_size=PEAK_BATCH_SIZE,
                    activation_bytes_largest=answers[0]["activation_bytes_largest"],
                    activation_bytes_total=answers[0]["activation_bytes_total"],
                    energy_source=energy.source,
                    energy_joules=energy.joules,
                    energy_images=energy.images,
                    energy_seconds=energy.seconds,
                )
                subject.add(found)
    return survey.outcome


def measure_energy(
    executor: Executor,
    meter: Meter | None,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy:
    """Classify black images in batches of :data:`PEAK_BATCH_SIZE` and read the meter around it."""
    if meter is None:
        return Energy(None, None, 0, 0.0)
    batch = np.zeros((PEAK_BATCH_SIZE, *IMAGE_SHAPE), np.uint8)
    executor.predict(batch)
    images = 0
    before, start = meter.read_joules(), clock()
    while clock() - start < seconds:
        executor.predict(batch)
        images += PEAK_BATCH_SIZE
    lasted, after = clock() - start, meter.read_joules()
    return Energy(meter.source, meter.used(before, after), images, lasted)


def _probe(path: Path, device: str, threads: int) -> dict[str, Any]:
    """Run the model in one fresh process; its answer.

    Raises:
        BenchError: it failed, with its own last line.
    """
    arguments = [str(path.resolve()), device, str(threads), str(PEAK_BATCH_SIZE)]
    try:
        answer = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "bench.measure.probe", *arguments, str(time.monotonic_ns())],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"the fresh process did not answer within {_PROBE_TIMEOUT_SECONDS} s"
        raise BenchError(message) from error
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        message = f"the fresh process ended with {answer.returncode}: {last}"
        raise BenchError(message)
    result: dict[str, Any] = json.loads(answer.stdout)
    return result
