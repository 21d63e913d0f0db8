"""From all rows to what is shown: for each model, as it is now, the newest of each measurement.

A model is what its digest says. When it was exported again, rows of the older file stay on disk
and are not mixed with those of the newer one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final, Literal, TypeVar

from bench.rows.files import DatasetReference, Row, newest
from bench.rows.kinds.measurements import (
    AccuracyMeasurement,
    CostMeasurement,
    FailureMeasurement,
    LatencyMeasurement,
    LoadMeasurement,
    Measurement,
    ResourceMeasurement,
    RobustnessMeasurement,
    ThroughputMeasurement,
    TrainingMeasurement,
    VerifyMeasurement,
)
from bench.rows.kinds.plan import PlanMeasurement
from bench.rows.kinds.sending import SendingMeasurement
from bench.rows.kinds.variant import VariantMeasurement
from bench.statistics.pareto import Candidate, pareto_front
from bench.statistics.samples import median, percentile
from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER

TradeOff = Literal["latency", "size", "MACs"]
"""What accuracy is held against: one image's typical latency in ms, bytes, multiply-accumulates."""

TRADE_OFFS: Final[tuple[TradeOff, ...]] = ("latency", "size", "MACs")

_PROVIDER_OF_DEVICE: Final = {"cpu": CPU_PROVIDER, "cuda": CUDA_PROVIDER}

_KIND_THAT_MENDS: Final = {"open": "cost"}
"""Failed stage → the kind of row that shows it works again, where that is not its own name."""


@dataclass(frozen=True)
class ModelResult:
    """All that is known of one model on one execution provider of one machine."""

    model: str
    digest: str
    provider: str | None
    """None where nothing could be executed."""
    cost: CostMeasurement | None
    accuracy: AccuracyMeasurement | None
    dataset: DatasetReference | None
    latency: dict[int, LatencyMeasurement]
    """By batch size, ascending."""
    throughput: dict[int, ThroughputMeasurement]
    """By batch size, ascending."""
    load: LoadMeasurement | None
    """Flat out, a closed loop."""
    verify: VerifyMeasurement | None
    failures: tuple[FailureMeasurement, ...]
    """Those that no later success has superseded."""
    quick: bool
    """Some of this comes from a quick run."""
    robustness: tuple[RobustnessMeasurement, ...] = ()
    """One for each corruption, as they were measured."""
    sendings: tuple[SendingMeasurement, ...] = ()
    """One for each way of sending, as they were measured."""
    resources: ResourceMeasurement | None = None
    training: TrainingMeasurement | None = None
    offered: tuple[LoadMeasurement, ...] = ()
    """Loads at a given rate, an open loop."""
    variant: VariantMeasurement | None = None
    """What it was made from, where it is a variant; of one that was refused, all that is known."""
    plan: PlanMeasurement | None = None
    """What its newest session decided to measure of it; None outside of one."""

    def latency_ms(self, percent: float, batch_size: int = 1) -> float | None:
        """A percentile of the time of one call, in ms; None where it was not measured."""
        found = self.latency.get(batch_size)
        return None if found is None else percentile(found.samples_ns, percent) / 1e6

    def mean_latency_ms(self, batch_size: int = 1) -> float | None:
        """The mean of the time of one call, in ms; None where it was not measured."""
        found = self.latency.get(batch_size)
        return None if found is None else fmean(found.samples_ns) / 1e6

    @property
    def typical_latency_ms(self) -> float | None:
        """Of one image, to compare models by: the median; of one with an early exit the mean, for
        its median would leave out the second look that only some images take."""
        return self.mean_latency_ms() if self.exits_early else self.latency_ms(50)

    @property
    def exits_early(self) -> bool:
        """Whether it looks a second time at some images only."""
        return self.cost is not None and self.cost.second_looks is not None

    def images_per_second(self, batch_size: int) -> float | None:
        """The median over the blocks; None where it was not measured."""
        found = self.throughput.get(batch_size)
        if found is None:
            return None
        blocks = zip(found.block_images, found.block_ns, strict=True)
        return median([images * 1e9 / ns for images, ns in blocks])

    def cost_in(self, trade_off: TradeOff) -> float | None:
        """What the model costs there: ms, bytes or multiply-accumulates; None if not measured."""
        if trade_off == "latency":
            return self.typical_latency_ms
        if self.cost is None:
            return None
        return self.cost.size_bytes if trade_off == "size" else self.cost.macs

    @property
    def best_batch_size(self) -> int | None:
        """The batch size with the highest throughput."""
        rates = {size: self.images_per_second(size) or 0.0 for size in self.throughput}
        return max(rates, key=lambda size: rates[size]) if rates else None


def select(rows: Iterable[Row]) -> list[ModelResult]:
    """What to show of one machine's rows: the most accurate model first, failed ones last."""
    by_model: dict[str, list[Row]] = {}
    for row in newest(rows):
        by_model.setdefault(row.model, []).append(row)
    found = [result for model in by_model.values() for result in _results(model)]
    return sorted(found, key=_rank)


def fronts(results: Sequence[ModelResult]) -> dict[TradeOff, frozenset[int]]:
    """Trade-off → the positions in ``results`` that are on its Pareto front.

    Only models on the same provider, measured on the same images, are held against each other.
    """
    return {
        trade_off: _front(results, [result.cost_in(trade_off) for result in results])
        for trade_off in TRADE_OFFS
    }


def _front(results: Sequence[ModelResult], costs: Sequence[float | None]) -> frozenset[int]:
    groups: dict[tuple[str | None, DatasetReference | None], list[Candidate]] = {}
    for position, (result, cost) in enumerate(zip(results, costs, strict=True)):
        if result.accuracy is not None and cost is not None:
            group = groups.setdefault((result.provider, result.dataset), [])
            group.append(Candidate(str(position), result.accuracy.top1.accuracy, cost))
    return frozenset(int(name) for group in groups.values() for name in pareto_front(group))


M = TypeVar("M", bound=Measurement)


def _results(rows: list[Row]) -> list[ModelResult]:
    """One model's results, one for each provider that ran it; ``rows`` oldest first."""
    digests = [row.digest for row in rows if row.digest]
    digest = digests[-1] if digests else ""
    current = [row for row in rows if row.digest in (digest, "")]
    providers = sorted({provider for row in current if (provider := _provider(row)) is not None})
    if not providers:
        return [_result(current, digest, None)]
    return [_result(current, digest, provider) for provider in providers]


def _result(rows: list[Row], digest: str, provider: str | None) -> ModelResult:
    mine = [row for row in rows if _provider(row) in (None, provider)]
    accuracy_rows = [row for row in mine if row.kind == "accuracy"]
    latency = {found.batch_size: found for found in _of(mine, LatencyMeasurement)}
    throughput = {found.batch_size: found for found in _of(mine, ThroughputMeasurement)}
    loads = _of(mine, LoadMeasurement)
    failures = [row for row in mine if row.kind == "failure" and not _superseded(row, mine)]
    return ModelResult(
        model=rows[0].model,
        digest=digest,
        provider=provider,
        cost=_last(mine, CostMeasurement),
        accuracy=_last(mine, AccuracyMeasurement),
        dataset=accuracy_rows[-1].dataset if accuracy_rows else None,
        latency=dict(sorted(latency.items())),
        throughput=dict(sorted(throughput.items())),
        load=next((found for found in reversed(loads) if found.rate_per_s is None), None),
        offered=tuple(found for found in loads if found.rate_per_s is not None),
        verify=_last(mine, VerifyMeasurement),
        failures=tuple(_of(failures, FailureMeasurement)),
        quick=any(row.quick for row in mine),
        robustness=tuple(_of(mine, RobustnessMeasurement)),
        sendings=tuple(_of(mine, SendingMeasurement)),
        resources=_last(mine, ResourceMeasurement),
        training=_training(mine),
        variant=_last(mine, VariantMeasurement),
        plan=_last(mine, PlanMeasurement),
    )


def _training(rows: Sequence[Row]) -> TrainingMeasurement | None:
    """Without its curve where the weights were random: no such accuracy is shown."""
    cost, found = _last(rows, CostMeasurement), _last(rows, TrainingMeasurement)
    if cost is None or found is None or not cost.random_weights:
        return found
    return replace(
        found, epochs=(), train_accuracy=None, validation_accuracy=None, test_accuracy=None
    )


def _provider(row: Row) -> str | None:
    """Which provider a row is about; None: the model as such."""
    match row.measurement:
        case (
            AccuracyMeasurement()
            | LatencyMeasurement()
            | ThroughputMeasurement()
            | RobustnessMeasurement()
            | SendingMeasurement()
            | ResourceMeasurement()
        ):
            return row.measurement.provider
        case LoadMeasurement() | VerifyMeasurement():
            return _PROVIDER_OF_DEVICE.get(row.measurement.device, row.measurement.device)
        case _:
            return None


def _superseded(failure: Row, rows: Sequence[Row]) -> bool:
    """Whether a later run succeeded at what failed."""
    kind = _KIND_THAT_MENDS.get(failure.key, failure.key)
    return any(
        row.kind == kind and row.created > failure.created and row.run_id != failure.run_id
        for row in rows
    )


def _of(rows: Iterable[Row], kind: type[M]) -> list[M]:
    return [row.measurement for row in rows if isinstance(row.measurement, kind)]


def _last(rows: Iterable[Row], kind: type[M]) -> M | None:
    found = _of(rows, kind)
    return found[-1] if found else None


def _rank(result: ModelResult) -> tuple[int, float, str, str]:
    if result.accuracy is None:
        refused = result.variant is not None and result.variant.refused is not None
        return (2 if result.failures or refused else 1), 0.0, result.model, result.provider or ""
    return 0, -result.accuracy.top1.accuracy, result.model, result.provider or ""
