"""Memory, start-up time and energy of each model in fresh processes (``bench resources``).

Memory and start-up time are for a process with only this project's predictor. A server needs more,
but the set-up is the same for every model, so models can be compared.
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
from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.measure.setup import Open
from bench.measure.survey import RunOutcome, Survey
from bench.rows.files import Recorder
from bench.rows.kinds.cost import ResourceMeasurement, StartSample
from cifar10.contract import ImageShape
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
    """Meter reading while images are classified back to back."""

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
    """Measure the named models and record the results.

    Args:
        open_model: loads a model to measure its energy; an exception becomes a failure row.
        energy_seconds: duration of the energy measurement, if there is a meter.

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
                energy = measure_energy(
                    open_model(stored),
                    find_meter(provider),
                    energy_seconds,
                    image_shape=stored.card.image_shape,
                )
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
    *,
    image_shape: ImageShape = IMAGE_SHAPE,
) -> Energy:
    """Classify black images in batches of :data:`PEAK_BATCH_SIZE` and return the energy used."""
    if meter is None:
        return Energy(None, None, 0, 0.0)
    batch = np.zeros((PEAK_BATCH_SIZE, *image_shape), np.uint8)
    executor.predict(batch)
    images = 0
    before, start = meter.read_joules(), clock()
    while clock() - start < seconds:
        executor.predict(batch)
        images += PEAK_BATCH_SIZE
    lasted, after = clock() - start, meter.read_joules()
    return Energy(meter.source, meter.used(before, after), images, lasted)


def _probe(path: Path, device: str, threads: int) -> dict[str, Any]:
    """Run the model in one fresh process and return the printed figures.

    Raises:
        BenchError: the process failed; includes its last line of output.
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
