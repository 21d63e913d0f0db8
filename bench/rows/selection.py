"""From all rows to what is shown: for each model, as it is now, the newest of each measurement.

A model is what its digest says. When it was exported again, rows of the older file stay on disk and
are not mixed with those of the newer one. Where the store is known, the file that it holds counts;
results of any other file are marked (:attr:`ModelResult.released`) and come after it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

from bench.rows.kinds.accuracy import (
    AccuracyMeasurement,
    RobustnessMeasurement,
    SendingMeasurement,
    VerifyMeasurement,
)
from bench.rows.kinds.cost import (
    CostMeasurement,
    ResourceMeasurement,
    TrainingMeasurement,
    VariantMeasurement,
)
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.session import FailureMeasurement, PlanMeasurement
from bench.rows.kinds.speed import LatencyMeasurement, ThroughputMeasurement
from bench.rows.row import DatasetReference, Measurement, Row
from bench.statistics.pareto import Candidate, pareto_front
from cifar10.paired import PairedTest

TradeOff = Literal["latency", "size", "MACs"]
"""Cost that accuracy is compared with: one image's typical latency in ms, bytes, MACs."""

TRADE_OFFS: Final[tuple[TradeOff, ...]] = ("latency", "size", "MACs")

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
    """Closed loop, flat out."""
    verify: VerifyMeasurement | None
    failures: tuple[FailureMeasurement, ...]
    """Failures that no later success has superseded."""
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
    released: bool = True
    """Whether the store holds this very file; True where the store is not known."""

    @property
    def share_right(self) -> float | None:
        """Top-1 accuracy, 0–1; None where it was not measured."""
        return self.accuracy.top1.accuracy if self.accuracy else None

    @property
    def recipe(self) -> str | None:
        """Recipe of the training; None where it is not known."""
        known = self.cost or self.variant
        return known.recipe if known else None

    @property
    def precision(self) -> str | None:
        """``fp32``, ``int8`` or ``fp16``; None where it is not known."""
        known = self.cost or self.variant
        return known.precision if known else None

    @property
    def has_random_weights(self) -> bool:
        """Whether only its cost may be shown."""
        return self.cost is not None and self.cost.random_weights

    @property
    def exits_early(self) -> bool:
        """Whether it looks a second time at some images only."""
        return self.cost is not None and self.cost.second_looks is not None

    def latency_ms(self, percent: float, batch_size: int = 1) -> float | None:
        """Percentile of the time of one call, in ms; None where it was not measured."""
        found = self.latency.get(batch_size)
        return found.percentile_ms(percent) if found else None

    @property
    def mean_latency_ms(self) -> float | None:
        """Mean time of one call with one image, in ms; None where it was not measured."""
        return self.latency[1].mean_ms if 1 in self.latency else None

    @property
    def typical_latency_ms(self) -> float | None:
        """Latency of one image, to compare models by: the median; with an early exit the mean,
        for its median would leave out the second look that only some images take."""
        return self.mean_latency_ms if self.exits_early else self.latency_ms(50)

    def images_per_second(self, batch_size: int | None) -> float | None:
        """Median over the blocks; None where it was not measured."""
        found = self.throughput.get(batch_size) if batch_size else None
        return found.images_per_second if found else None

    @property
    def best_batch_size(self) -> int | None:
        """Batch size with the highest throughput."""
        return max(self.throughput, key=lambda size: self.throughput[size].images_per_second,
                   default=None)  # fmt: skip

    def cost_in(self, trade_off: TradeOff) -> float | None:
        """Cost in a trade-off: ms, bytes or multiply-accumulates; None if not measured."""
        if trade_off == "latency":
            return self.typical_latency_ms
        if self.cost is None:
            return None
        return self.cost.size_bytes if trade_off == "size" else self.cost.macs

    @property
    def accuracy_per_million_parameters(self) -> float | None:
        """See :meth:`CostMeasurement.accuracy_per_million_parameters`; None if not measured."""
        if self.share_right is None or self.cost is None:
            return None
        return self.cost.accuracy_per_million_parameters(self.share_right)

    def against(self, other: "ModelResult") -> PairedTest | None:
        """McNemar's test with this model as the first; None unless both saw the same images."""
        if self.accuracy is None or other.accuracy is None or self.dataset != other.dataset:
            return None
        return self.accuracy.against(other.accuracy)


def newest(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: for each identity the newest full one, or the newest quick one where
    there is no full one. Oldest first."""
    best: dict[tuple[str, str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (not row.quick, row.created)):
        best[row.identity] = row
    return sorted(best.values(), key=lambda row: row.created)


def select(rows: Iterable[Row], store: Mapping[str, str] | None = None) -> list[ModelResult]:
    """What to show of one machine's rows: the most accurate model first, failed ones last; the
    store's own files before all others.

    Args:
        rows: of one machine.
        store: name → digest of the models that are released; None where that is not known.
    """
    by_model: dict[str, list[Row]] = {}
    for row in newest(rows):
        by_model.setdefault(row.model, []).append(row)
    found = [
        result
        for name, mine in by_model.items()
        for result in _results(mine, None if store is None else store.get(name, ""))
    ]
    return sorted(found, key=_rank)


def fronts(results: Sequence[ModelResult]) -> dict[TradeOff, frozenset[int]]:
    """Trade-off → the positions in ``results`` that are on its Pareto front.

    Only models on the same provider, measured on the same images, are compared with each other.
    """
    return {
        trade_off: _front(results, [result.cost_in(trade_off) for result in results])
        for trade_off in TRADE_OFFS
    }


def _front(results: Sequence[ModelResult], costs: Sequence[float | None]) -> frozenset[int]:
    groups: dict[tuple[str | None, DatasetReference | None], list[Candidate]] = {}
    for position, (result, cost) in enumerate(zip(results, costs, strict=True)):
        if result.share_right is not None and cost is not None:
            group = groups.setdefault((result.provider, result.dataset), [])
            group.append(Candidate(str(position), result.share_right, cost))
    return frozenset(int(name) for group in groups.values() for name in pareto_front(group))


M = TypeVar("M", bound=Measurement)


def rows_of(rows: Iterable[Row], kind: type[M]) -> list[Row[M]]:
    """The rows that hold one kind of measurement, in their order."""
    return [row for row in rows if isinstance(row.measurement, kind)]  # type: ignore[misc]


def _results(rows: list[Row], released: str | None) -> list[ModelResult]:
    """One model's results, one for each provider that ran it; ``rows`` oldest first.

    ``released``: the digest in the store; empty where it has no such model, None where the store
    is not known.
    """
    digests = [row.digest for row in rows if row.digest]
    digest = released if released in digests else (digests or [""])[-1]
    current = [row for row in rows if row.digest in (digest, "")]
    named = {row.measurement.execution_provider for row in current} - {None}
    return [
        replace(_result(current, digest or "", provider), released=released in (None, digest))
        for provider in sorted(filter(None, named)) or (None,)
    ]


def _result(rows: list[Row], digest: str, provider: str | None) -> ModelResult:
    mine = [row for row in rows if row.measurement.execution_provider in (None, provider)]
    accuracy_rows = rows_of(mine, AccuracyMeasurement)
    latency = {found.batch_size: found for found in _of(mine, LatencyMeasurement)}
    throughput = {found.batch_size: found for found in _of(mine, ThroughputMeasurement)}
    loads = _of(mine, LoadMeasurement)
    closed = [found for found in loads if found.rate_per_s is None]
    failures = [row for row in rows_of(mine, FailureMeasurement) if not _superseded(row, mine)]
    return ModelResult(
        model=rows[0].model,
        digest=digest,
        provider=provider,
        cost=_last(mine, CostMeasurement),
        accuracy=_last(mine, AccuracyMeasurement),
        dataset=accuracy_rows[-1].dataset if accuracy_rows else None,
        latency=dict(sorted(latency.items())),
        throughput=dict(sorted(throughput.items())),
        load=closed[-1] if closed else None,
        offered=tuple(found for found in loads if found.rate_per_s is not None),
        verify=_last(mine, VerifyMeasurement),
        failures=tuple(row.measurement for row in failures),
        quick=any(row.quick for row in mine),
        robustness=tuple(_of(mine, RobustnessMeasurement)),
        sendings=tuple(_of(mine, SendingMeasurement)),
        resources=_last(mine, ResourceMeasurement),
        training=_training(mine),
        variant=_last(mine, VariantMeasurement),
        plan=_last(mine, PlanMeasurement),
    )


def _training(rows: Sequence[Row]) -> TrainingMeasurement | None:
    """The training without its curve where the weights were random: no such accuracy is shown."""
    cost, found = _last(rows, CostMeasurement), _last(rows, TrainingMeasurement)
    if cost is None or found is None or not cost.random_weights:
        return found
    return replace(
        found, epochs=(), train_accuracy=None, validation_accuracy=None, test_accuracy=None
    )


def _superseded(failure: Row, rows: Sequence[Row]) -> bool:
    """Whether a later run succeeded at what failed."""
    kind = _KIND_THAT_MENDS.get(failure.key, failure.key)
    return any(
        row.kind == kind and row.created > failure.created and row.run_id != failure.run_id
        for row in rows
    )


def _of(rows: Iterable[Row], kind: type[M]) -> list[M]:
    return [row.measurement for row in rows_of(rows, kind)]


def _last(rows: Iterable[Row], kind: type[M]) -> M | None:
    return next(iter(reversed(_of(rows, kind))), None)


def _rank(result: ModelResult) -> tuple[bool, int, float, str, str]:
    refused = result.variant is not None and result.variant.refused is not None
    failed = 2 if result.failures or refused else 1
    place = failed if result.share_right is None else 0
    return (
        not result.released, place, -(result.share_right or 0.0), result.model,
        result.provider or "",
    )  # fmt: skip
