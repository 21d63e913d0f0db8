"""The efficiency table: its lines and columns, and the same as records for CSV and the page."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.formats import (
    NOTHING,
    REQUESTS_PER_S_SHARED,
    accuracy_with_interval,
    count,
    millions,
    percent,
    points,
    short_provider,
    significant,
)
from bench.report.shown import CIFAR10, by_dataset, dataset_name
from bench.report.tables import Column, Table, to_csv, words
from bench.rows.kinds.accuracy import mean_corrupted_accuracy
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, TradeOff, fronts
from cifar10.accuracy import wilson_interval
from cifar10.predictor import CPU_PROVIDER

FLOORS: Final = ((0.94, "DAWNBench"), (0.85, "MLPerf Tiny"))
"""Accuracies on CIFAR-10 below which two known benchmarks do not look at speed, highest first.

DAWNBench: C. Coleman et al., "DAWNBench: An End-to-End Deep Learning Benchmark and Competition",
NeurIPS ML Systems Workshop 2017. MLPerf Tiny: C. Banbury et al., "MLPerf Tiny Benchmark", 2021.
"""

NOT_RELEASED: Final = "not the file in `models/`"
"""Note on a model whose figures are of a file that the store does not hold."""


@dataclass(frozen=True)
class Entry:
    """A line of the table: a model on a provider, and how it compares with the others."""

    result: ModelResult
    on_fronts: tuple[TradeOff, ...]
    seed_accuracies: tuple[float, ...]
    """Accuracies of this recipe at this precision, one for each seed measured here, itself
    first."""
    source_changed: bool = False
    """Whether it is a variant of an older file of its source."""

    @property
    def floor(self) -> float | None:
        """Highest of :data:`FLOORS` that its accuracy reaches; 0 for none of them.

        They are CIFAR-10's: a model of other images has none.
        """
        share = self.result.share_right
        if share is None or dataset_name(self.result) != CIFAR10:
            return None
        return next((floor for floor, _ in FLOORS if share >= floor), 0.0)

    @property
    def notes(self) -> list[str]:
        """Remarks on the model."""
        result, variant = self.result, self.result.variant
        found = [failure.reason for failure in result.failures]
        if not result.released:
            found.append(NOT_RELEASED)
        if result.quick:
            found.append("quick run")
        if result.has_random_weights:
            found.append("random weights: cost only")
        elif result.plan is not None and result.plan.left_out:
            found.append(f"{result.plan.reason}: not all was measured")
        if result.cost is not None and result.cost.second_looks is not None:
            mean = result.mean_latency_ms
            takes = "" if mean is None else f", {significant(mean)} ms on average"
            looks = percent(result.cost.second_looks)
            found.append(f"early exit: a second view for {looks} % of validation images{takes}")
        if variant is not None and variant.refused is not None:
            found.append(f"refused: it {variant.refused}")
        elif variant is not None and self.source_changed:
            found.append(f"made from an older {variant.record.source}")
        return found

    def record(self) -> dict[str, Any]:
        """Return the exact values, by names with their units."""
        result, cost = self.result, self.result.cost
        top1 = result.accuracy.top1 if result.accuracy else None
        rate = result.load.request_rate if result.load else None
        return {
            "model": result.model,
            "precision": result.precision,
            "recipe": result.recipe,
            "accuracy": top1.accuracy if top1 else None,
            "accuracy_low": top1.low if top1 else None,
            "accuracy_high": top1.high if top1 else None,
            "floor_reached": self.floor,
            "seeds": len(self.seed_accuracies) or None,
            "seed": cost.seed if cost else None,
            "gap": result.accuracy.overfitting_gap if result.accuracy else None,
            "parameters_total": cost.parameters_total if cost else None,
            "parameters_trainable": cost.parameters_trainable if cost else None,
            "macs": cost.macs if cost else None,
            "size_bytes": cost.size_bytes if cost else None,
            "accuracy_points_per_million_parameters": result.accuracy_per_million_parameters,
            "latency_p50_ms": result.latency_ms(50),
            "latency_typical_ms": result.typical_latency_ms,
            "latency_p99_ms": result.latency_ms(99),
            "throughput_images_per_second": result.images_per_second(result.best_batch_size),
            "throughput_batch_size": result.best_batch_size,
            "http_requests_per_second": rate,
            "training_seconds": self.training_seconds,
            "training_hardware": cost.training_hardware if cost else None,
            "test_images": top1.count if top1 else None,
            "dataset": result.dataset.variant if result.dataset else None,
            "provider": result.provider,
            "pareto": list(self.on_fronts),
            "notes": self.notes,
            "digest": result.digest,
        }

    @property
    def training_seconds(self) -> float | None:
        """Training time. With random weights only a few images were trained on: None."""
        cost = self.result.cost
        return None if cost is None or cost.random_weights else cost.training_seconds


def entries(results: Sequence[ModelResult]) -> list[Entry]:
    """Return the lines of the table, in the order given."""
    main = one_of_each(results)
    on_front = {
        name: [main[position] for position in front] for name, front in fronts(main).items()
    }
    return [
        Entry(
            result,
            tuple(name for name, front in on_front.items() if any(one is result for one in front)),
            _seed_accuracies(result, results),
            _source_changed(result, results),
        )
        for result in results
    ]


def efficiency_table(
    results: Sequence[ModelResult], every: Sequence[ModelResult] = (), top: int = 0
) -> Table[Entry]:
    """Return the table of some models, in the order given.

    Args:
        results: models to show, one line each.
        every: all models, for fronts and for the other seeds of a recipe; by default the same.
        top: number of rows shown until "all models" is chosen.
    """
    found = {id(entry.result): entry for entry in entries(every or results)}
    return Table(COLUMNS, [found[id(result)] for result in results], top=top)


def tables_by_dataset(
    results: Sequence[ModelResult], every: Sequence[ModelResult] = (), top: int = 0
) -> dict[str, Table[Entry]]:
    """Return a table for each data set, because accuracies on different ones are not comparable."""
    groups = by_dataset(results)
    return {name: efficiency_table(found, every, top) for name, found in groups.items()}


def efficiency_records(results: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """Return all models as records, each with whether any of it comes from a quick run and with
    what was measured on other images."""
    return [
        entry.record() | {"quick": entry.result.quick} | _elsewhere(entry.result)
        for entry in entries(results)
    ]


def efficiency_csv(results: Sequence[ModelResult]) -> str:
    """Return the records as CSV."""
    records = [entry.record() for entry in entries(results)]
    for record in records:
        record |= {"pareto": " ".join(record["pareto"]), "notes": "; ".join(record["notes"])}
    return to_csv(list(records[0]) if records else [], [list(one.values()) for one in records])


def seeds_text(entry: Entry) -> str:
    """Return the mean accuracy of several seeds with its standard deviation."""
    found = entry.seed_accuracies
    if len(found) < 2:
        return str(len(found)) if found else NOTHING
    return f"{len(found)}: {percent(statistics.fmean(found))} ± {percent(statistics.stdev(found))}"


def accuracy_text(entry: Entry) -> str:
    """Return the accuracy with its interval, or the mean of several seeds with its deviation."""
    found = entry.seed_accuracies
    if len(found) > 1:
        mean, spread = statistics.fmean(found), statistics.stdev(found)
        return f"{percent(mean)} ± {percent(spread)} ({len(found)} seeds)"
    return accuracy_with_interval(entry.result.accuracy.top1 if entry.result.accuracy else None)


def _elsewhere(result: ModelResult) -> dict[str, Any]:
    """Return what is known of the model on other images than the test images of its data set:
    damaged copies of them, images of another data set, pictures of none of its classes."""
    damaged, found = mean_corrupted_accuracy(result.robustness), result.elsewhere
    record: dict[str, Any] = {} if damaged is None else {"damaged_accuracy": damaged}
    if found is not None and found.of_classes:
        low, high = wilson_interval(found.right, found.of_classes)
        record |= {
            "elsewhere_dataset": found.dataset,
            "elsewhere_images": found.of_classes,
            "elsewhere_accuracy": found.right / found.of_classes,
            "elsewhere_low": low,
            "elsewhere_high": high,
            "others_images": found.of_others,
            "others_sure": found.share_of_others("sure"),
        }
    return record


def _source_changed(result: ModelResult, results: Sequence[ModelResult]) -> bool:
    if result.variant is None:
        return False
    record = result.variant.record
    here = [other.digest for other in results if other.model == record.source]
    return bool(here) and record.source_sha256 not in here


def _variant(entry: Entry) -> str:
    """Precision, and the recipe or the model that a variant was made from."""
    result = entry.result
    if result.variant is not None:
        return f"{result.precision} of {result.variant.record.source}"
    return f"{result.precision}, {result.recipe}" if result.precision else NOTHING


def _seed_accuracies(result: ModelResult, results: Sequence[ModelResult]) -> tuple[float, ...]:
    if result.cost is None or result.share_right is None:
        return ()
    found = {result.cost.seed: result.share_right}
    for other in results:
        if (
            other.cost is not None
            and other.share_right is not None
            and other.released == result.released
            and (other.cost.recipe, other.cost.precision, other.provider, other.dataset)
            == (result.cost.recipe, result.cost.precision, result.provider, result.dataset)
        ):
            found.setdefault(other.cost.seed, other.share_right)
    return tuple(found.values())


def _throughput_text(entry: Entry) -> str:
    size = entry.result.best_batch_size
    return NOTHING if size is None else f"{count(entry.result.images_per_second(size))} ({size})"


def _rate_text(entry: Entry) -> str:
    load = entry.result.load
    if load is None:
        return NOTHING
    return f"{count(load.request_rate)}{'*' if load.generator_was_limit else ''}"


def _floor_text(entry: Entry) -> str:
    if entry.floor is None:
        return NOTHING
    return f"{percent(entry.floor, 0)} %" if entry.floor else "none"


def _training_text(entry: Entry) -> str:
    seconds = entry.training_seconds
    return NOTHING if seconds is None else significant(seconds / 60)


def _images_text(entry: Entry) -> str:
    accuracy, dataset = entry.result.accuracy, entry.result.dataset
    return f"{count(accuracy.top1.count)} {dataset.variant}" if accuracy and dataset else NOTHING


def _calibration_text(entry: Entry) -> str:
    accuracy = entry.result.accuracy
    found = accuracy.reliability if accuracy else None
    return NOTHING if found is None else significant(found.expected_calibration_error * 100)


def _model_text(entry: Entry) -> str:
    result = entry.result
    remarks = [] if result.provider in (None, CPU_PROVIDER) else [short_provider(result.provider)]
    remarks += ["quick"] if result.quick else []
    return f"`{result.model}`" + (f" ({', '.join(remarks)})" if remarks else "")


def _cost(field: str, number: Callable[[Any], str]) -> Callable[[Entry], str]:
    """Return the text of a field of the cost row."""
    return lambda e: number(getattr(e.result.cost, field) if e.result.cost else None)


def _extra(title: str, text: Callable[[Entry], str], **more: Any) -> Column[Entry]:
    return Column(title, text, extra=True, **more)


COLUMNS: Final[tuple[Column[Entry], ...]] = (
    words("Model", _model_text),
    Column("Accuracy, %", accuracy_text),
    Column("Latency, ms", lambda e: significant(e.result.typical_latency_ms)),
    Column("p99, ms", lambda e: significant(e.result.latency_ms(99))),
    Column(REQUESTS_PER_S_SHARED, _rate_text),
    Column("Size, MB", _cost("size_bytes", millions)),
    Column("MACs, M", _cost("macs", millions)),
    Column("Parameters", _cost("parameters_total", count)),
    _extra("Variant", _variant, align="left"),
    _extra("Trainable", _cost("parameters_trainable", count)),
    _extra("Images/s (batch)", _throughput_text),
    _extra("Gap, points",
           lambda e: points(e.result.accuracy.overfitting_gap if e.result.accuracy else None)),
    _extra("Damaged, %", lambda e: percent(mean_corrupted_accuracy(e.result.robustness), 1)),
    _extra("ECE, points", _calibration_text),
    _extra("Floor reached", _floor_text),
    _extra("Accuracy per M parameters",
           lambda e: significant(e.result.accuracy_per_million_parameters)),
    _extra("Training, minutes", _training_text),
    _extra("Test images", _images_text),
    _extra("Provider", lambda e: short_provider(e.result.provider), align="left"),
    _extra("Pareto front", lambda e: ", ".join(e.on_fronts) or NOTHING, align="left"),
    _extra("Notes", lambda e: "; ".join(e.notes) or NOTHING, align="left"),
)  # fmt: skip
"""Columns of the table, in order."""
