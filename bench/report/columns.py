"""The columns of the efficiency table: what each shows, sorts by, and is exactly.

One list for Markdown, HTML and CSV, so that the three cannot disagree.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.report.formats import (
    NOTHING,
    Align,
    accuracy_with_interval,
    count,
    millions,
    percent,
    points,
    short_provider,
    significant,
)
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, TradeOff, fronts

FLOORS: Final = ((0.94, "DAWNBench"), (0.85, "MLPerf Tiny"))
"""Accuracies on CIFAR-10 below which two known benchmarks do not look at speed, highest first.

DAWNBench: C. Coleman et al., "DAWNBench: An End-to-End Deep Learning Benchmark and Competition",
NeurIPS ML Systems Workshop 2017. MLPerf Tiny: C. Banbury et al., "MLPerf Tiny Benchmark", 2021.
"""

_REASON_LENGTH: Final = 160

Value = float | int | str | None


@dataclass(frozen=True)
class Entry:
    """A line of the table: a model on a provider, and how it stands among the others."""

    result: ModelResult
    on_fronts: tuple[TradeOff, ...]
    seed_accuracies: tuple[float, ...]
    """Of this recipe at this precision, one for each training seed measured here, itself first."""
    source_changed: bool = False
    """A variant of a file that its source no longer is."""

    @property
    def accuracy(self) -> float | None:
        """Top-1, 0–1."""
        return self.result.accuracy.top1.accuracy if self.result.accuracy else None

    @property
    def floor(self) -> float | None:
        """The highest of :data:`FLOORS` that its accuracy reaches; 0 for none of them."""
        if self.accuracy is None:
            return None
        return next((floor for floor, _ in FLOORS if self.accuracy >= floor), 0.0)

    @property
    def notes(self) -> list[str]:
        """What else has to be said of it."""
        found = [failure_reason(failure) for failure in self.result.failures]
        if self.result.cost is not None and self.result.cost.random_weights:
            found.append("random weights: cost only")
        elif self.result.plan is not None and self.result.plan.left_out:
            found.append(f"{self.result.plan.reason}: not all was measured")
        if self.result.cost is not None and self.result.cost.second_looks is not None:
            found.append(_two_looks(self.result, self.result.cost.second_looks))
        variant = self.result.variant
        if variant is not None and variant.refused is not None:
            found.append(f"refused: it {variant.refused}")
        elif variant is not None and self.source_changed:
            found.append(f"made from an older {variant.record.source}")
        return found

    @property
    def precision(self) -> str | None:
        """``fp32``, ``int8`` or ``fp16``."""
        known = self.result.cost or self.result.variant
        return known.precision if known else None

    @property
    def recipe(self) -> str | None:
        """Of the training."""
        known = self.result.cost or self.result.variant
        return known.recipe if known else None


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    align: Align
    text: Callable[[Entry], str]
    """Rounded, for people."""
    sort: Callable[[Entry], Value]
    """What the sortable table sorts by."""
    exact: tuple[tuple[str, Callable[[Entry], Value]], ...]
    """CSV columns: name with its unit, and the unrounded value."""


def entries(results: Sequence[ModelResult]) -> list[Entry]:
    """The lines of the table, in the order given."""
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


def failure_reason(failure: FailureMeasurement) -> str:
    """What failed and why, on one line."""
    message = " ".join(failure.message.split())
    if len(message) > _REASON_LENGTH:
        message = message[: _REASON_LENGTH - 1] + "…"
    return f"failed at {failure.stage}: {failure.error}: {message}"


def _two_looks(result: ModelResult, share: float) -> str:
    mean = result.mean_latency_ms
    takes = "" if mean is None else f", {significant(mean)} ms on the mean"
    return f"early exit: a second look at {percent(share)} % of validation images{takes}"


def _source_changed(result: ModelResult, results: Sequence[ModelResult]) -> bool:
    if result.variant is None:
        return False
    record = result.variant.record
    here = [other.digest for other in results if other.model == record.source]
    return bool(here) and record.source_sha256 not in here


def _variant(entry: Entry) -> str | None:
    """Precision, and what it is of: the recipe, or the model that a variant was made from."""
    variant = entry.result.variant
    if variant is not None:
        return f"{entry.precision} of {variant.record.source}, {entry.recipe}"
    return f"{entry.precision}, {entry.recipe}" if entry.precision else None


def _seed_accuracies(result: ModelResult, results: Sequence[ModelResult]) -> tuple[float, ...]:
    if result.cost is None or result.accuracy is None:
        return ()
    found: dict[int | None, float] = {result.cost.seed: result.accuracy.top1.accuracy}
    for other in results:
        if (
            other.cost is not None
            and other.accuracy is not None
            and (other.cost.recipe, other.cost.precision, other.provider, other.dataset)
            == (result.cost.recipe, result.cost.precision, result.provider, result.dataset)
        ):
            found.setdefault(other.cost.seed, other.accuracy.top1.accuracy)
    return tuple(found.values())


def _accuracy_text(entry: Entry) -> str:
    """The accuracy; of a model that has none for lack of weights, what is missing and what fills
    it."""
    cost = entry.result.cost
    if entry.result.accuracy is None and cost is not None and cost.random_weights:
        return f"no pretrained weights here; with them: `cifar10 train {cost.recipe}`"
    return accuracy_with_interval(entry.result.accuracy.top1 if entry.result.accuracy else None)


def _seeds(entry: Entry) -> str:
    found = entry.seed_accuracies
    if len(found) < 2:
        return str(len(found)) if found else NOTHING
    mean, spread = statistics.fmean(found), statistics.stdev(found)
    return f"{len(found)}: {percent(mean)} ± {percent(spread)}"


def _per_million(entry: Entry) -> float | None:
    cost = entry.result.cost
    if entry.accuracy is None or cost is None:
        return None
    return cost.accuracy_per_million_parameters(entry.accuracy)


def _latency(entry: Entry) -> str:
    result = entry.result
    if 1 not in result.latency:
        return NOTHING
    return f"{significant(result.latency_ms(50))} / {significant(result.latency_ms(99))}"


def _throughput(entry: Entry) -> float | None:
    size = entry.result.best_batch_size
    return None if size is None else entry.result.images_per_second(size)


def _throughput_text(entry: Entry) -> str:
    size = entry.result.best_batch_size
    return NOTHING if size is None else f"{count(_throughput(entry))} ({size})"


def _rate(entry: Entry) -> float | None:
    return None if entry.result.load is None else entry.result.load.request_rate


def _rate_text(entry: Entry) -> str:
    if entry.result.load is None:
        return NOTHING
    return f"{count(_rate(entry))}{'*' if entry.result.load.generator_was_limit else ''}"


def _floor_text(entry: Entry) -> str:
    if entry.floor is None:
        return NOTHING
    return f"{percent(entry.floor, 0)} %" if entry.floor else "none"


def _training_text(entry: Entry) -> str:
    cost, seconds = entry.result.cost, _training_seconds(entry)
    if cost is None or seconds is None:
        return NOTHING
    return f"{significant(seconds / 60)} on {cost.training_hardware}"


def _training_seconds(entry: Entry) -> float | None:
    """With random weights, only a few images were trained on: that is not what a training takes."""
    cost = entry.result.cost
    return None if cost is None or cost.random_weights else cost.training_seconds


def _cost(field: str) -> Callable[[Entry], Value]:
    """A field of the cost row, exactly."""
    return lambda entry: getattr(entry.result.cost, field) if entry.result.cost else None


def _accuracy(field: str) -> Callable[[Entry], Value]:
    """A field of the accuracy row, exactly."""
    return lambda entry: getattr(entry.result.accuracy, field) if entry.result.accuracy else None


def _top1(field: str) -> Callable[[Entry], Value]:
    """A field of the accuracy itself, exactly."""
    return lambda e: getattr(e.result.accuracy.top1, field) if e.result.accuracy else None


def _trainable(entry: Entry) -> float | None:
    return entry.result.cost.parameters_trainable if entry.result.cost else None


def _one(title: str, align: Align, text: Callable[[Entry], str], name: str,
         value: Callable[[Entry], Value]) -> Column:  # fmt: skip
    """A column that holds one figure."""
    return Column(title, align, text, value, ((name, value),))


COLUMNS: Final[tuple[Column, ...]] = (
    _one(
        "Model", "left",
        lambda e: f"{e.result.model} (quick)" if e.result.quick else e.result.model,
        "model", lambda e: e.result.model,
    ),
    Column(
        "Variant", "left",
        lambda e: _variant(e) or NOTHING,
        _variant,
        (("precision", lambda e: e.precision), ("recipe", lambda e: e.recipe)),
    ),
    Column(
        "Accuracy, % (95 % interval)", "right",
        _accuracy_text,
        _top1("accuracy"),
        (("accuracy", _top1("accuracy")), ("accuracy_low", _top1("low")),
         ("accuracy_high", _top1("high"))),
    ),
    _one("Floor reached", "right", _floor_text, "floor_reached", lambda e: e.floor),
    Column(
        "Seeds", "right", _seeds, lambda e: len(e.seed_accuracies) or None,
        (("seeds", lambda e: len(e.seed_accuracies) or None), ("seed", _cost("seed"))),
    ),
    _one(
        "Gap, points", "right",
        lambda e: points(e.result.accuracy.overfitting_gap if e.result.accuracy else None),
        "gap", _accuracy("overfitting_gap"),
    ),
    _one(
        "Parameters", "right",
        lambda e: count(e.result.cost.parameters_total if e.result.cost else None),
        "parameters_total", _cost("parameters_total"),
    ),
    _one("Trainable", "right", lambda e: count(_trainable(e)), "parameters_trainable", _trainable),
    _one(
        "MACs, M", "right", lambda e: millions(e.result.cost.macs if e.result.cost else None),
        "macs", _cost("macs"),
    ),
    _one(
        "Size, MB", "right",
        lambda e: millions(e.result.cost.size_bytes if e.result.cost else None),
        "size_bytes", _cost("size_bytes"),
    ),
    _one(
        "Accuracy per M parameters", "right", lambda e: significant(_per_million(e)),
        "accuracy_points_per_million_parameters", _per_million,
    ),
    Column(
        "Latency p50 / p99, ms", "right", _latency, lambda e: e.result.typical_latency_ms,
        (("latency_p50_ms", lambda e: e.result.latency_ms(50)),
         ("latency_typical_ms", lambda e: e.result.typical_latency_ms),
         ("latency_p99_ms", lambda e: e.result.latency_ms(99))),
    ),
    Column(
        "Throughput, images/s (batch)", "right", _throughput_text, _throughput,
        (("throughput_images_per_second", _throughput),
         ("throughput_batch_size", lambda e: e.result.best_batch_size)),
    ),
    _one("HTTP, requests/s", "right", _rate_text, "http_requests_per_second", _rate),
    Column(
        "Training, minutes", "right", _training_text, _training_seconds,
        (("training_seconds", _training_seconds),
         ("training_hardware", _cost("training_hardware"))),
    ),
    Column(
        "Test images", "left",
        lambda e: f"{count(e.result.accuracy.top1.count)} {e.result.dataset.variant}"
        if e.result.accuracy and e.result.dataset else NOTHING,
        _top1("count"),
        (("test_images", _top1("count")),
         ("dataset", lambda e: e.result.dataset.variant if e.result.dataset else None)),
    ),
    _one(
        "Provider", "left", lambda e: short_provider(e.result.provider),
        "provider", lambda e: e.result.provider,
    ),
    Column(
        "Pareto on accuracy against", "left",
        lambda e: "; ".join([*([", ".join(e.on_fronts)] if e.on_fronts else []), *e.notes])
        or NOTHING,
        lambda e: len(e.on_fronts),
        (("pareto", lambda e: " ".join(e.on_fronts)), ("notes", lambda e: "; ".join(e.notes)),
         ("digest", lambda e: e.result.digest)),
    ),
)  # fmt: skip
"""In the order shown."""
