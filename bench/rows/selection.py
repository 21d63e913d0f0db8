"""Select what to show from all rows: each model's newest measurements of its current file.

A model is identified by its digest. After a new export, rows of the older file stay on disk and are
not mixed with those of the newer one. If the store is known, the file in it counts; results of
any other file are marked (:attr:`ModelResult.released`) and come after it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from bench.rows.kinds.verdicts import VerdictMeasurement
from bench.rows.row import DatasetReference, Measurement, Row
from bench.statistics.pareto import Candidate, pareto_front
from cifar10.errors import Cifar10Error
from cifar10.paired import PairedTest
from cifar10.store import ModelStore

TradeOff = Literal["latency", "size", "MACs"]
"""Cost axis of a trade-off with accuracy: typical latency of one image in ms, bytes, or MACs."""

TRADE_OFFS: Final[tuple[TradeOff, ...]] = ("latency", "size", "MACs")

_KIND_THAT_MENDS: Final = {"open": "cost"}
"""Kind of row that supersedes a failed stage, if its name differs from the stage's."""


@dataclass(frozen=True)
class ModelResult:
    """All results of one model on one execution provider of one machine."""

    model: str
    digest: str
    provider: str | None
    """Execution provider; None if nothing could be executed."""
    cost: CostMeasurement | None
    accuracy: AccuracyMeasurement | None
    dataset: DatasetReference | None
    latency: dict[int, LatencyMeasurement]
    """Latencies by batch size, ascending."""
    throughput: dict[int, ThroughputMeasurement]
    """Throughputs by batch size, ascending."""
    load: LoadMeasurement | None
    """Closed-loop load at full speed."""
    verify: VerifyMeasurement | None
    failures: tuple[FailureMeasurement, ...]
    """Failures not superseded by a later success."""
    quick: bool
    """Whether some results come from a quick run."""
    robustness: tuple[RobustnessMeasurement, ...] = ()
    """Robustness to each corruption, in the order measured."""
    sendings: tuple[SendingMeasurement, ...] = ()
    """Results for each way of sending, in the order measured."""
    verdicts: tuple[VerdictMeasurement, ...] = ()
    """Verdicts of this model by itself, in the order measured."""
    resources: ResourceMeasurement | None = None
    training: TrainingMeasurement | None = None
    offered: tuple[LoadMeasurement, ...] = ()
    """Open-loop loads at a given rate."""
    variant: VariantMeasurement | None = None
    """Source of a variant; the only data of a refused variant. None for other models."""
    plan: PlanMeasurement | None = None
    """Role in the newest session; None outside of one."""
    released: bool = True
    """Whether the store holds this file; True if the store is not known."""

    @property
    def share_right(self) -> float | None:
        """Top-1 accuracy, 0–1; None if not measured."""
        return self.accuracy.top1.accuracy if self.accuracy else None

    @property
    def elsewhere(self) -> VerdictMeasurement | None:
        """Newest verdicts on images of another data set than the model's own, such as photographs;
        None if not measured."""
        own = self.dataset.name if self.dataset else None
        found = [one for one in self.verdicts if one.dataset != own and not one.chose_thresholds]
        return found[-1] if found else None

    @property
    def recipe(self) -> str | None:
        """Recipe of the training; None if not known."""
        known = self.cost or self.variant
        return known.recipe if known else None

    @property
    def precision(self) -> str | None:
        """``fp32``, ``int8`` or ``fp16``; None if not known."""
        known = self.cost or self.variant
        return known.precision if known else None

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights are random, so that only the cost may be shown."""
        return self.cost is not None and self.cost.random_weights

    @property
    def exits_early(self) -> bool:
        """Whether the graph uses the second view for some images only."""
        return self.cost is not None and self.cost.second_looks is not None

    def latency_ms(self, percent: float, batch_size: int = 1) -> float | None:
        """Return a percentile of the call times, in ms; None if not measured."""
        found = self.latency.get(batch_size)
        return found.percentile_ms(percent) if found else None

    @property
    def mean_latency_ms(self) -> float | None:
        """Return the mean call time for one image, in ms; None if not measured."""
        return self.latency[1].mean_ms if 1 in self.latency else None

    @property
    def typical_latency_ms(self) -> float | None:
        """Typical latency of one image, for comparing models.

        It is the median; with an early exit it is the mean, because the median would leave out the
        second view that only some images take.
        """
        return self.mean_latency_ms if self.exits_early else self.latency_ms(50)

    def images_per_second(self, batch_size: int | None) -> float | None:
        """Return the median over the blocks; None if not measured."""
        found = self.throughput.get(batch_size) if batch_size else None
        return found.images_per_second if found else None

    @property
    def best_batch_size(self) -> int | None:
        """Batch size with the highest throughput."""
        return max(self.throughput, key=lambda size: self.throughput[size].images_per_second,
                   default=None)  # fmt: skip

    def cost_in(self, trade_off: TradeOff) -> float | None:
        """Return the cost in a trade-off (ms, bytes or MACs); None if not measured."""
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
        """Return McNemar's test with this model as the first; None unless both used the same
        images."""
        if self.accuracy is None or other.accuracy is None or self.dataset != other.dataset:
            return None
        return self.accuracy.against(other.accuracy)


def newest(rows: Iterable[Row]) -> list[Row]:
    """Return the newest full row for each identity, or the newest quick one if there is none.

    Rows are ordered oldest first.
    """
    best: dict[tuple[str, str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (not row.quick, row.created)):
        best[row.identity] = row
    return sorted(best.values(), key=lambda row: row.created)


def select(rows: Iterable[Row], store: Mapping[str, str] | None = None) -> list[ModelResult]:
    """Return the results of one machine's rows to show.

    The store's own files come first, then the others; within these, the most accurate model first,
    failed ones last.

    Args:
        store: digests of the released models by name; None if not known.
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


def released_digests(models: Path) -> dict[str, str]:
    """Map each model in a store to its digest, leaving out those whose card cannot be read."""
    store = ModelStore(models)
    found = {}
    for name in store.names():
        try:
            found[name] = store.card(name).sha256
        except Cifar10Error:
            continue
    return found


def fronts(results: Sequence[ModelResult]) -> dict[TradeOff, frozenset[int]]:
    """Map each trade-off to the positions in ``results`` that are on its Pareto front.

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
    """Return the rows with one kind of measurement, in their order."""
    return [row for row in rows if isinstance(row.measurement, kind)]  # type: ignore[misc]


def _results(rows: list[Row], released: str | None) -> list[ModelResult]:
    """Return one model's results, one for each provider that ran it; ``rows`` are oldest first.

    ``released`` is the digest in the store; empty if the store has no such model, None if the
    store is not known.
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
        verdicts=tuple(one for one in _of(mine, VerdictMeasurement) if one.small is None),
        resources=_last(mine, ResourceMeasurement),
        training=_training(mine),
        variant=_last(mine, VariantMeasurement),
        plan=_last(mine, PlanMeasurement),
    )


def _training(rows: Sequence[Row]) -> TrainingMeasurement | None:
    """Return the training, without its curve if the weights were random."""
    cost, found = _last(rows, CostMeasurement), _last(rows, TrainingMeasurement)
    if cost is None or found is None or not cost.random_weights:
        return found
    return replace(
        found, epochs=(), train_accuracy=None, validation_accuracy=None, test_accuracy=None
    )


def _superseded(failure: Row[FailureMeasurement], rows: Sequence[Row]) -> bool:
    """Return whether a later run of the failed measurement succeeded."""
    stage, provider = failure.measurement.stage, failure.measurement.provider
    # A cost row is about no engine: another engine's opens nothing, its figures do.
    kind = "accuracy" if provider and stage == "open" else _KIND_THAT_MENDS.get(stage, stage)
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
