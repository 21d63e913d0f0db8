"""The efficiency table: its lines and columns, for Markdown, HTML, CSV and ``efficiency.json``."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.formats import (
    NOTHING,
    REQUESTS_PER_S,
    REQUESTS_PER_S_SHARED,
    accuracy_with_interval,
    count,
    millions,
    percent,
    points,
    short_provider,
    significant,
)
from bench.report.tables import Align, Column, Table, Value
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, TradeOff, fronts
from cifar10.predictor import CUDA_PROVIDER

FLOORS: Final = ((0.94, "DAWNBench"), (0.85, "MLPerf Tiny"))
"""Accuracies on CIFAR-10 below which two known benchmarks do not look at speed, highest first.

DAWNBench: C. Coleman et al., "DAWNBench: An End-to-End Deep Learning Benchmark and Competition",
NeurIPS ML Systems Workshop 2017. MLPerf Tiny: C. Banbury et al., "MLPerf Tiny Benchmark", 2021.
"""

NOT_RELEASED: Final = "not the file in `models/`"
"""Note on a line whose figures are of a file that the store does not hold."""

LEGEND: Final = (
    "Accuracy: top-1 through ONNX Runtime, with its Wilson interval. Floor reached: the accuracy "
    "from which MLPerf Tiny (85 %) or DAWNBench (94 %) look at speed at all. Seeds: trainings of "
    "the recipe measured here, with their mean ± standard deviation where there are several. Gap: "
    "train minus test. MACs: for one image; with an early exit, for one that does not take it. "
    "Latency: one image, in process; models are compared by p50, one with an early exit, which "
    "does more for some images than for others, by its mean. Throughput: in process, the best "
    f"batch size. {REQUESTS_PER_S_SHARED}: closed loop over HTTP, PNG in, JSON out, with the load "
    f"generator on the server's cores ({REQUESTS_PER_S}, further down, is with the generator on a "
    "core of its own); * the load generator was the limit. Accuracy "
    "per M parameters is the reference study's measure, percentage points per million parameters; "
    "it favours the smallest model without bound (ten parameters that always answer the same score "
    "a million), so nothing is ranked by it. Pareto: no other model here is both more accurate and "
    "cheaper in that respect; the floors say whether it is accurate enough to matter."
)

_NO_GPU: Final = (
    "No GPU rows: none of these models was executed by CUDA here. On a machine with an NVIDIA GPU "
    "they are filled by `cifar10 bench all --device cuda`."
)


@dataclass(frozen=True)
class Entry:
    """A line of the table: a model on a provider, and how it compares with the others."""

    result: ModelResult
    on_fronts: tuple[TradeOff, ...]
    seed_accuracies: tuple[float, ...]
    """Accuracies of this recipe at this precision, one for each seed measured here, itself
    first."""
    source_changed: bool = False
    """A variant of a file that its source no longer is."""

    @property
    def floor(self) -> float | None:
        """The highest of :data:`FLOORS` that its accuracy reaches; 0 for none of them."""
        share = self.result.share_right
        if share is None:
            return None
        return next((floor for floor, _ in FLOORS if share >= floor), 0.0)

    @property
    def notes(self) -> list[str]:
        """What else has to be said of it."""
        result, variant = self.result, self.result.variant
        found = [failure.reason for failure in result.failures]
        if not result.released:
            found.append(NOT_RELEASED)
        if result.has_random_weights:
            found.append("random weights: cost only")
        elif result.plan is not None and result.plan.left_out:
            found.append(f"{result.plan.reason}: not all was measured")
        if result.cost is not None and result.cost.second_looks is not None:
            mean = result.mean_latency_ms
            takes = "" if mean is None else f", {significant(mean)} ms on the mean"
            looks = percent(result.cost.second_looks)
            found.append(f"early exit: a second look at {looks} % of validation images{takes}")
        if variant is not None and variant.refused is not None:
            found.append(f"refused: it {variant.refused}")
        elif variant is not None and self.source_changed:
            found.append(f"made from an older {variant.record.source}")
        return found

    @property
    def training_seconds(self) -> float | None:
        """Training time. With random weights only a few images were trained on: None."""
        cost = self.result.cost
        return None if cost is None or cost.random_weights else cost.training_seconds


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


def efficiency_table(results: Sequence[ModelResult], caption: str = "") -> Table[Entry]:
    """One line per model and provider, in the order given."""
    return Table(COLUMNS, entries(results), caption)


def efficiency_records(results: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """The same lines as records: the CSV's names and exact values, but lists for the two columns
    that hold several things, and whether any of it comes from a quick run."""
    table = efficiency_table(results)
    return [
        record
        | {"pareto": entry.on_fronts, "notes": entry.notes, "quick": entry.result.quick}
        for entry, record in zip(table.rows, table.records(), strict=True)
    ]  # fmt: skip


def gpu_line(results: Sequence[ModelResult]) -> str:
    """What to do about missing GPU rows; empty where there are some."""
    return "" if any(result.provider == CUDA_PROVIDER for result in results) else _NO_GPU


def _source_changed(result: ModelResult, results: Sequence[ModelResult]) -> bool:
    if result.variant is None:
        return False
    record = result.variant.record
    here = [other.digest for other in results if other.model == record.source]
    return bool(here) and record.source_sha256 not in here


def _variant(entry: Entry) -> str | None:
    """Precision, and what it is of: the recipe, or the model that a variant was made from."""
    result = entry.result
    if result.variant is not None:
        return f"{result.precision} of {result.variant.record.source}, {result.recipe}"
    return f"{result.precision}, {result.recipe}" if result.precision else None


def _seed_accuracies(result: ModelResult, results: Sequence[ModelResult]) -> tuple[float, ...]:
    if result.cost is None or result.share_right is None:
        return ()
    found = {result.cost.seed: result.share_right}
    for other in results:
        if (
            other.cost is not None
            and other.share_right is not None
            and (other.cost.recipe, other.cost.precision, other.provider, other.dataset)
            == (result.cost.recipe, result.cost.precision, result.provider, result.dataset)
        ):
            found.setdefault(other.cost.seed, other.share_right)
    return tuple(found.values())


def _accuracy_text(entry: Entry) -> str:
    """The accuracy; without weights, what is missing and what provides it."""
    result = entry.result
    if result.accuracy is None and result.has_random_weights:
        return f"no pretrained weights here; with them: `cifar10 train {result.recipe}`"
    return accuracy_with_interval(result.accuracy.top1 if result.accuracy else None)


def _seeds_text(entry: Entry) -> str:
    found = entry.seed_accuracies
    if len(found) < 2:
        return str(len(found)) if found else NOTHING
    return f"{len(found)}: {percent(statistics.fmean(found))} ± {percent(statistics.stdev(found))}"


def _latency_text(entry: Entry) -> str:
    result = entry.result
    if 1 not in result.latency:
        return NOTHING
    return f"{significant(result.latency_ms(50))} / {significant(result.latency_ms(99))}"


def _throughput(entry: Entry) -> float | None:
    return entry.result.images_per_second(entry.result.best_batch_size)


def _throughput_text(entry: Entry) -> str:
    size = entry.result.best_batch_size
    return NOTHING if size is None else f"{count(_throughput(entry))} ({size})"


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
    cost, seconds = entry.result.cost, entry.training_seconds
    if cost is None or seconds is None:
        return NOTHING
    return f"{significant(seconds / 60)} on {cost.training_hardware}"


def _images_text(entry: Entry) -> str:
    accuracy, dataset = entry.result.accuracy, entry.result.dataset
    return f"{count(accuracy.top1.count)} {dataset.variant}" if accuracy and dataset else NOTHING


def _notes_text(entry: Entry) -> str:
    fronts_of = [", ".join(entry.on_fronts)] if entry.on_fronts else []
    return "; ".join([*fronts_of, *entry.notes]) or NOTHING


def _cost(field: str) -> Callable[[Entry], Any]:
    """Read a field of the cost row."""
    return lambda entry: getattr(entry.result.cost, field) if entry.result.cost else None


def _top1(field: str) -> Callable[[Entry], Any]:
    """Read a field of the accuracy."""
    return lambda e: getattr(e.result.accuracy.top1, field) if e.result.accuracy else None


def _gap(entry: Entry) -> float | None:
    return entry.result.accuracy.overfitting_gap if entry.result.accuracy else None


def _figure(title: str, name: str, value: Callable[[Entry], Any],
            number: Callable[[Any], str] = str, align: Align = "right",
            ) -> Column[Entry]:  # fmt: skip
    """Make a column that shows one figure, rounded by ``number``."""
    return Column(title, lambda entry: number(value(entry)), align, value, ((name, value),))


def _column(title: str, text: Callable[[Entry], str], sort: Callable[[Entry], Value],
            *exact: tuple[str, Callable[[Entry], Value]], align: Align = "right",
            ) -> Column[Entry]:  # fmt: skip
    return Column(title, text, align, sort, exact)


COLUMNS: Final[tuple[Column[Entry], ...]] = (
    _column(
        "Model", lambda e: f"{e.result.model} (quick)" if e.result.quick else e.result.model,
        lambda e: e.result.model, ("model", lambda e: e.result.model), align="left",
    ),
    _column(
        "Variant", lambda e: _variant(e) or NOTHING, _variant,
        ("precision", lambda e: e.result.precision), ("recipe", lambda e: e.result.recipe),
        align="left",
    ),
    _column(
        "Accuracy, % (95 % interval)", _accuracy_text, _top1("accuracy"),
        ("accuracy", _top1("accuracy")), ("accuracy_low", _top1("low")),
        ("accuracy_high", _top1("high")),
    ),
    _column("Floor reached", _floor_text, lambda e: e.floor, ("floor_reached", lambda e: e.floor)),
    _column(
        "Seeds", _seeds_text, lambda e: len(e.seed_accuracies) or None,
        ("seeds", lambda e: len(e.seed_accuracies) or None), ("seed", _cost("seed")),
    ),
    _figure("Gap, points", "gap", _gap, points),
    _figure("Parameters", "parameters_total", _cost("parameters_total"), count),
    _figure("Trainable", "parameters_trainable", _cost("parameters_trainable"), count),
    _figure("MACs, M", "macs", _cost("macs"), millions),
    _figure("Size, MB", "size_bytes", _cost("size_bytes"), millions),
    _figure(
        "Accuracy per M parameters", "accuracy_points_per_million_parameters",
        lambda e: e.result.accuracy_per_million_parameters, significant,
    ),
    _column(
        "Latency p50 / p99, ms", _latency_text, lambda e: e.result.typical_latency_ms,
        ("latency_p50_ms", lambda e: e.result.latency_ms(50)),
        ("latency_typical_ms", lambda e: e.result.typical_latency_ms),
        ("latency_p99_ms", lambda e: e.result.latency_ms(99)),
    ),
    _column(
        "Throughput, images/s (batch)", _throughput_text, _throughput,
        ("throughput_images_per_second", _throughput),
        ("throughput_batch_size", lambda e: e.result.best_batch_size),
    ),
    _column(
        REQUESTS_PER_S_SHARED, _rate_text,
        lambda e: e.result.load.request_rate if e.result.load else None,
        ("http_requests_per_second",
         lambda e: e.result.load.request_rate if e.result.load else None),
    ),
    _column(
        "Training, minutes", _training_text, lambda e: e.training_seconds,
        ("training_seconds", lambda e: e.training_seconds),
        ("training_hardware", _cost("training_hardware")),
    ),
    _column(
        "Test images", _images_text, _top1("count"), ("test_images", _top1("count")),
        ("dataset", lambda e: e.result.dataset.variant if e.result.dataset else None),
        align="left",
    ),
    _figure("Provider", "provider", lambda e: e.result.provider, short_provider, "left"),
    _column(
        "Pareto on accuracy against", _notes_text, lambda e: len(e.on_fronts),
        ("pareto", lambda e: " ".join(e.on_fronts)), ("notes", lambda e: "; ".join(e.notes)),
        ("digest", lambda e: e.result.digest), align="left",
    ),
)  # fmt: skip
"""In the order shown."""
