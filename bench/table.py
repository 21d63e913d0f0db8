"""The efficiency table, and the reference study's figures beside ours."""

from collections.abc import Sequence
from typing import Final

from bench.cost import accuracy_per_million_parameters
from bench.load import generator_was_limit, request_rate
from bench.markdown import (
    NOTHING,
    Align,
    accuracy_with_interval,
    count,
    markdown_table,
    millions,
    points,
    short_provider,
    significant,
)
from bench.measurements import FailureMeasurement
from bench.reference_study import STUDY, StudyResult
from bench.selection import ModelResult, fronts

_COLUMNS: Final[tuple[tuple[str, Align], ...]] = (
    ("Model", "left"),
    ("Precision", "left"),
    ("Accuracy, % (95 % interval)", "right"),
    ("Test images", "left"),
    ("Gap, points", "right"),
    ("Parameters", "right"),
    ("MACs, M", "right"),
    ("Size, MB", "right"),
    ("Accuracy per M parameters", "right"),
    ("Latency p50 / p99, ms", "right"),
    ("Throughput, images/s (batch)", "right"),
    ("HTTP, requests/s", "right"),
    ("Provider", "left"),
    ("Pareto on accuracy against", "left"),
)

LEGEND: Final = (
    "Accuracy: top-1 through ONNX Runtime, with its Wilson interval. Gap: train minus test. "
    "Latency: one image, in process. Throughput: in process, the best batch size. HTTP: closed "
    "loop, PNG in, JSON out; * the load generator was the limit. Accuracy per M parameters is the "
    "reference study's measure; it favours the smallest model without bound, so nothing is ranked "
    "by it. Pareto: no other model here is both more accurate and cheaper in that respect."
)

_REASON_LENGTH: Final = 160


def efficiency_table(results: Sequence[ModelResult]) -> str:
    """One line per model and provider, in the order given, as Markdown."""
    on_front = fronts(results)
    rows = [
        _cells(result, [name for name, front in on_front.items() if position in front])
        for position, result in enumerate(results)
    ]
    return markdown_table([title for title, _ in _COLUMNS], rows, [side for _, side in _COLUMNS])


def _cells(result: ModelResult, on_fronts: Sequence[str]) -> list[str]:
    cost, accuracy = result.cost, result.accuracy
    notes = [", ".join(on_fronts)] if on_fronts else []
    notes += [failure_reason(failure) for failure in result.failures]
    if cost is not None and cost.random_weights:
        notes.append("random weights: cost only")
    per_million = (
        accuracy_per_million_parameters(accuracy.top1.accuracy, cost.parameters_total)
        if accuracy and cost
        else None
    )
    return [
        f"{result.model} (quick)" if result.quick else result.model,
        cost.precision if cost else NOTHING,
        accuracy_with_interval(accuracy.top1 if accuracy else None),
        f"{count(accuracy.top1.count)} {result.dataset.variant}"
        if accuracy and result.dataset
        else NOTHING,
        points(accuracy.overfitting_gap if accuracy else None),
        count(cost.parameters_total if cost else None),
        millions(cost.macs if cost else None),
        millions(cost.size_bytes if cost else None),
        significant(per_million),
        _latency(result),
        _throughput(result),
        _rate(result),
        short_provider(result.provider),
        "; ".join(notes) or NOTHING,
    ]


def _latency(result: ModelResult) -> str:
    if 1 not in result.latency:
        return NOTHING
    return f"{significant(result.latency_ms(50))} / {significant(result.latency_ms(99))}"


def _throughput(result: ModelResult) -> str:
    size = result.best_batch_size
    return NOTHING if size is None else f"{count(result.images_per_second(size))} ({size})"


def _rate(result: ModelResult) -> str:
    if result.load is None:
        return NOTHING
    star = "*" if generator_was_limit(result.load) else ""
    return f"{count(request_rate(result.load))}{star}"


def failure_reason(failure: FailureMeasurement) -> str:
    """What failed and why, on one line."""
    message = " ".join(failure.message.split())
    if len(message) > _REASON_LENGTH:
        message = message[: _REASON_LENGTH - 1] + "…"
    return f"failed at {failure.stage}: {failure.error}: {message}"


def study_table(results: Sequence[ModelResult]) -> str:
    """The study's models, each with the most accurate of ours that repeats it."""
    rows = []
    for study in STUDY:
        ours = next((result for result in results if _repeats(result, study)), None)
        accuracy = ours.accuracy if ours else None
        rows.append(
            [
                study.model,
                f"~ {study.test_percent:.0f}" if study.rounded else f"{study.test_percent:.2f}",
                NOTHING if study.train_percent is None else f"{study.train_percent:.1f}",
                NOTHING if study.gap_points is None else f"{study.gap_points:.1f}",
                NOTHING if study.epochs is None else str(study.epochs),
                ours.model if ours else NOTHING,
                accuracy_with_interval(accuracy.top1 if accuracy else None),
                points(accuracy.overfitting_gap if accuracy else None),
                str(ours.cost.training_epochs) if ours and ours.cost else NOTHING,
            ]
        )
    header = [
        "Reference study",
        "Test, %",
        "Train, %",
        "Gap, points",
        "Epochs",
        "Here",
        "Test, % (95 % interval)",
        "Gap, points",
        "Epochs",
    ]
    sides: list[Align] = [
        "left" if title in ("Reference study", "Here") else "right" for title in header
    ]
    return markdown_table(header, rows, sides)


def _repeats(result: ModelResult, study: StudyResult) -> bool:
    return (
        study.recipe is not None
        and result.accuracy is not None
        and result.cost is not None
        and result.cost.recipe == study.recipe
    )
