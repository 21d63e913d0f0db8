"""Made-up rows and a made-up machine, for tests of the report and its tables."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.report.shown import Shown
from bench.report.tables import Block, Table, to_markdown
from bench.rows.files import MachineResults, Recorder
from bench.rows.kinds.accuracy import AccuracyMeasurement, RobustnessMeasurement, VerifyMeasurement
from bench.rows.kinds.cost import (
    CostMeasurement,
    EpochFigures,
    ResourceMeasurement,
    StartSample,
    TrainingMeasurement,
)
from bench.rows.kinds.service import (
    BulkMeasurement,
    ChaosMeasurement,
    LoadMeasurement,
    PeerMeasurement,
    SettingsMeasurement,
)
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.kinds.speed import LatencyMeasurement, ThroughputMeasurement
from bench.rows.kinds.verdicts import VerdictCounts, VerdictMeasurement
from bench.rows.machine import Machine
from bench.rows.packed import pack_classes, pack_hits
from bench.rows.row import DatasetReference, Measurement
from bench.rows.selection import ModelResult
from cifar10.accuracy import Accuracy, wilson_interval
from cifar10.labels import LABELS
from cifar10.predictor import CPU_PROVIDER, Predictor, PredictorOptions
from cifar10.reliability import Reliability, measure_reliability
from cifar10.store import StoredModel

REFERENCE = DatasetReference("cifar10-jpeg75", "f" * 64)


def open_on_cpu(stored: StoredModel) -> Predictor:
    return Predictor(stored.onnx, PredictorOptions(device="cpu"))


MACHINE = Machine(
    cpu="Test CPU 9000",
    physical_cores=2,
    logical_cores=2,
    memory_bytes=8 * 2**30,
    operating_system="Test OS 1",
    kernel="1.0",
    architecture="x86_64",
    gpus=(),
    gpu_driver=None,
    governor=None,
    virtualization=None,
)


@pytest.fixture
def machine() -> Machine:
    return MACHINE


@pytest.fixture
def recorder(tmp_path: Path, machine: Machine) -> Recorder:
    return Recorder(tmp_path / "results", machine, {"python": "3.11.0"}, run_id="first")


def accuracy(correct: int, count: int = 10_000, gap: float = 0.174) -> AccuracyMeasurement:
    share = correct / count
    low, high = wilson_interval(correct, count)
    per_class = dict.fromkeys(LABELS, share)
    right, wrong = correct // 10, count // 10 - correct // 10
    confusion = tuple(
        tuple(right if row == column else (wrong if column == (row + 1) % 10 else 0)
              for column in range(10))
        for row in range(10)
    )  # fmt: skip
    top1 = Accuracy(count, correct, share, low, high, per_class)
    labels = np.arange(count) * 10 // count
    hits = np.arange(count) < correct
    predicted = np.where(hits, labels, (labels + 1) % 10)
    probabilities = np.full((count, 10), 0.02, np.float32)
    probabilities[np.arange(count), predicted] = 0.82
    return AccuracyMeasurement(
        CPU_PROVIDER,
        top1,
        confusion,
        share,
        share + gap,
        gap,
        pack_classes(predicted),
        pack_hits(hits),
        measure_reliability(probabilities, labels),
    )


def cost(recipe: str = "simple_cnn", parameters: int = 2_122_186, size: int = 8_500_000,
         macs: int = 11_877_888, *, random_weights: bool = False,
         second_looks: float | None = None) -> CostMeasurement:  # fmt: skip
    return CostMeasurement(
        recipe, "fp32", parameters, parameters, macs, size, random_weights, 9, 300.0, "2 cores", 0,
        second_looks,
    )  # fmt: skip


def latency(p50_ns: int, batch_size: int = 1) -> LatencyMeasurement:
    samples = tuple(p50_ns + 1_000 * step for step in range(-50, 51))
    return LatencyMeasurement(CPU_PROVIDER, 1, batch_size, 30, 10, samples, 101)


def throughput(images_per_second: int, batch_size: int = 1) -> ThroughputMeasurement:
    return ThroughputMeasurement(
        CPU_PROVIDER, 1, batch_size, (images_per_second,) * 3, (10**9, 10**9, 10**9)
    )


def load(requests: int = 20_000, generator_share: float = 0.5) -> LoadMeasurement:
    return LoadMeasurement(
        device="cpu",
        users=16,
        seconds=10.0,
        warm_up_seconds=3.0,
        warm_up_requests=500,
        status_counts={"200": requests},
        response_time_counts=((500, requests // 2), (1_000, requests - requests // 2)),
        requests_per_second=(requests // 10,) * 10,
        generator_cpu_share=generator_share,
        server_cpu_seconds=8.0,
        server_requests=requests + 500,
    )


def robustness(corruption: str = "blur", clean: int = 1_400) -> RobustnessMeasurement:
    strengths = (0.4, 0.6, 0.7, 0.8, 1.0)
    correct = tuple(clean - 100 * level for level in range(1, 6))
    return RobustnessMeasurement(
        CPU_PROVIDER, corruption, "strength", strengths, 2_000, 0, clean, correct
    )


def resources(joules: float | None = None) -> ResourceMeasurement:
    start = StartSample(
        200_000_000, 50_000_000, 1_000_000, 260_000_000, 50_000_000, 70_000_000, 90_000_000
    )
    return ResourceMeasurement(
        CPU_PROVIDER, 1, (start,) * 3, 32, 143_360, 400_000,
        "RAPL" if joules else None, joules, 10_000 if joules else 0, 3.0 if joules else 0.0,
    )  # fmt: skip


TRAINED = TrainingMeasurement(
    (50.0, 51.0),
    2,
    0.86,
    0.70,
    0.68,
    (EpochFigures(0.5, 0.55, 1.4, 1.3, "all"), EpochFigures(0.7, 0.68, 0.9, 0.95, "all")),
)


def verdicts(asked: str = "net", **changes: Any) -> VerdictMeasurement:
    """Return a row of 80 images of the classes, 60 of them sure and 57 right, and 20 others."""
    measured = VerdictMeasurement(
        CPU_PROVIDER, asked, None, "test", "cifar10", 0,
        {"sure": VerdictCounts(60, 57, 1), "likely": VerdictCounts(10, 8, 0),
         "unsure": VerdictCounts(8, 4, 3), "none": VerdictCounts(2, 0, 16)},
        tuple(min(5 * step, 60 + step) for step in range(1, 21)), 1_520.0,
        Reliability((0,) * 14 + (80,), (0,) * 14 + (70,), (0.0,) * 14 + (72.0,), (0,) * 15, 0.4),
    )  # fmt: skip
    return replace(measured, **changes)


def peer(
    name: str = "other", requests: int = 4_000, round_number: int = 1, **changes: Any
) -> PeerMeasurement:
    """Return the row of one server and round, with ``requests`` answered in four seconds."""
    measured = PeerMeasurement(
        name=name,
        server=f"{name.capitalize()} 1.0",
        role="peer",
        decoder="its own",
        sends="JPEG",
        round=round_number,
        worker_cores=1,
        ready_seconds=2.0,
        resident_bytes=200_000_000,
        connections=32,
        seconds=4.0,
        requests=requests,
        failed_requests=0,
        saturated_p50_ms=8.0,
        saturated_p99_ms=14.0,
        cpu_us_per_request=1_000.0,
        one_client_p50_ms=0.5,
        half_load_rate_per_s=500.0,
        half_load_requests=2_000,
        half_load_p50_ms=1.0,
        half_load_p99_ms=3.0,
        common_rate_per_s=200.0,
        common_rate_p50_ms=0.9,
        common_rate_p99_ms=2.0,
        generator_cpu_share=0.3,
    )
    return replace(measured, **changes)


CHAOS = ChaosMeasurement(
    "kill",
    2,
    4.0,
    {"200": 100},
    {"workers_killed": 1.0},
    ((0.0, 10), (1.0, 11)),
    "it answers",
    True,
)
BULK = BulkMeasurement("cpu", 256, 2, 3.0, (1.0,), (2.0,), 32, (3.0,), (4.0,))
SETTINGS = SettingsMeasurement(
    "cpu", 2, False, 2, 2, 32, 32, 3.0, (9.0,), (1.0,), (2.0,), (1.0,), (8,)
)

VERIFIED = VerifyMeasurement("cpu", 10_000, 10_000, 10_000, 6_806, 6_806, 6_806, ())


def failure(stage: str = "latency") -> FailureMeasurement:
    return FailureMeasurement(stage, "RuntimeError", "out of memory |\n at node 7")


def add_all(recorder: Recorder, model: str, digest: str, *measurements: Measurement) -> None:
    for measurement in measurements:
        is_accuracy = isinstance(measurement, AccuracyMeasurement)
        recorder.add(model, digest, REFERENCE if is_accuracy else None, measurement)


def text_of(
    render: Callable[[Shown], Iterable[Block]],
    results: MachineResults | None,
    models: Sequence[ModelResult],
) -> str:
    """Return a section of the report as Markdown, with all rows of its tables."""
    blocks = [
        replace(block, name="") if isinstance(block, Table) else block
        for block in render(Shown(results, tuple(models)))
    ]
    return to_markdown(blocks, {})


def with_extras(table: Table) -> Table:
    """Return a table that shows the columns behind "more columns", too."""
    return replace(table, columns=[replace(column, extra=False) for column in table.columns])
