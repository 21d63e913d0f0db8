"""Which model to ship for which budget: the cheapest of the most accurate ones in it.

Within a budget the most accurate model is the reference. Every model that is not significantly less
accurate (McNemar's test on the same images) counts as equally accurate, so the cheapest of those is
the one to ship. The interval of one figure is no such test: it ignores that the images are the
same. Only files that the store holds are recommended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.report.efficiency import FLOORS
from bench.report.formats import (
    accuracy_with_interval,
    millions,
    percent,
    short_provider,
    significant,
)
from bench.report.tables import Block, Column, Table, words
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, TradeOff
from cifar10.predictor import CPU_PROVIDER


@dataclass(frozen=True)
class Budget:
    """A limit on one cost."""

    title: str
    trade_off: TradeOff
    limit: float
    """Milliseconds, bytes or multiply-accumulates."""


BUDGETS: Final = (
    Budget("one image within 1 ms", "latency", 1),
    Budget("one image within 10 ms", "latency", 10),
    Budget("a file of at most 1 MB", "size", 1e6),
    Budget("a file of at most 10 MB", "size", 10e6),
    Budget("at most 15 M multiply-accumulates", "MACs", 15e6),
    Budget("no limit: the most accurate, then the fastest", "latency", float("inf")),
)
"""15 M: what MLPerf Tiny's own ResNet-8 takes, rounded up."""


@dataclass(frozen=True)
class Pick:
    """What to ship within one budget."""

    budget: Budget
    model: ModelResult | None
    """None: nothing measured fits."""
    as_accurate: tuple[ModelResult, ...]
    """Others in the budget that are not significantly less accurate than the best."""


def pick_for_budgets(results: Sequence[ModelResult]) -> list[Pick]:
    """The picks among models on one provider and the same full test set.

    Args:
        results: as :func:`bench.rows.selection.select` orders them.
    """
    rivals = one_of_each(comparable([result for result in results if result.released]))
    return [_pick(budget, rivals) for budget in BUDGETS]


def comparable(results: Sequence[ModelResult]) -> list[ModelResult]:
    """The models that can be compared with each other: one provider, one set of images.

    The CPU's where there are any, else those of the best model's provider; of these, the images of
    the group with most models.
    """
    right = [result for result in results if result.accuracy is not None]
    if any(not result.quick for result in right):
        right = [result for result in right if not result.quick]
    if not right:
        return []
    providers = [result.provider for result in right]
    provider = CPU_PROVIDER if CPU_PROVIDER in providers else providers[0]
    right = [result for result in right if result.provider == provider]
    datasets = [result.dataset for result in right]
    dataset = max(datasets, key=datasets.count)
    return [result for result in right if result.dataset == dataset]


def told_apart(first: ModelResult, second: ModelResult) -> bool:
    """Whether their accuracies differ significantly."""
    test = first.against(second)
    if test is None:  # rows that do not tell image by image: the intervals have to do
        one, other = first.accuracy, second.accuracy
        return bool(one and other and (one.top1.low > other.top1.high
                                       or other.top1.low > one.top1.high))  # fmt: skip
    return test.is_real


def why(pick: Pick) -> str:
    """The figures that speak for a pick, on one line of Markdown."""
    model = pick.model
    if model is None or model.accuracy is None:
        return "nothing measured here fits"
    parts = [f"{accuracy_with_interval(model.accuracy.top1)} %"]
    typical = model.typical_latency_ms
    if typical is not None:
        parts.append(f"{significant(typical)} ms on {short_provider(model.provider)}")
    if model.cost is not None:
        parts.append(f"{millions(model.cost.size_bytes)} MB")
        parts.append(f"{millions(model.cost.macs)} M MACs")
    if pick.as_accurate:
        names = ", ".join(f"`{other.model}`" for other in pick.as_accurate)
        parts.append(f"cannot be told from {names} in accuracy, and cheaper")
    return "; ".join(parts)


def reaches(model: ModelResult | None) -> str:
    """Which floors its accuracy reaches, in words."""
    if model is None or model.accuracy is None:
        return "–"
    for floor, whose in FLOORS:
        if _accuracy(model) >= floor:
            return f"{percent(floor, 0)} % ({whose})"
    return "none"


def reaches_a_floor(model: ModelResult | None) -> bool:
    """Whether its accuracy reaches the lowest of the floors."""
    return model is not None and _accuracy(model) >= FLOORS[-1][0]


def ship(pick: Pick) -> str:
    """What to ship, in Markdown: a model below every floor is named, not recommended."""
    if pick.model is None:
        return "none"
    if reaches_a_floor(pick.model):
        return f"`{pick.model.model}`"
    return f"none (nearest: `{pick.model.model}`)"


LEAST: Final = f"at least {percent(FLOORS[-1][0], 0)} %"
"""What a model must reach to be recommended."""

HOW_TO_MAKE: Final = (
    "More models are measured than `models/` holds. Any is made by `cifar10 train NAME "
    "&& cifar10 export NAME`, its int8 variant by `cifar10 export NAME --int8`."
)
"""Where a model that was measured is to be had: rows are kept of more models than are shipped."""


def budgets(results: Sequence[ModelResult]) -> list[Block]:
    """The table of what to ship for each budget; nothing where nothing can be recommended."""
    picks = pick_for_budgets(results)
    if not any(pick.model for pick in picks):
        return []
    columns: list[Column[Pick]] = [
        words("Budget", lambda pick: pick.budget.title),
        words(f"Ship ({LEAST})", ship),
        words("Why", why),
        words("Floor reached", lambda pick: reaches(pick.model)),
    ]
    return [Table(columns, picks), HOW_TO_MAKE]


def _pick(budget: Budget, rivals: Sequence[ModelResult]) -> Pick:
    priced = [
        (cost, result)
        for result in rivals
        if (cost := result.cost_in(budget.trade_off)) is not None and cost <= budget.limit
    ]
    if not priced:
        return Pick(budget, None, ())
    best = max(priced, key=lambda pair: _accuracy(pair[1]))[1]
    equal = [pair for pair in priced if not told_apart(best, pair[1])]
    cheapest = min(equal, key=_dearness)[1]
    return Pick(budget, cheapest, tuple(result for _, result in equal if result is not cheapest))


def _dearness(pair: tuple[float, ModelResult]) -> tuple[float, float, float]:
    """Orders by the cost asked for, then by latency; the more accurate of equals first."""
    cost, result = pair
    typical = result.typical_latency_ms
    return cost, float("inf") if typical is None else typical, -_accuracy(result)


def _accuracy(result: ModelResult) -> float:
    return result.share_right or 0.0
