"""The verdict: which released model to ship, for each data set and each budget.

Within a budget the most accurate model is the reference. Every model that is not significantly less
accurate (McNemar's test on the same images) counts as equally accurate, and the cheapest of those
is recommended. Intervals of single accuracies are no such test: they ignore that the images are the
same. Only files in the store are recommended, and accuracies on different data sets are never
compared.

Without a budget, the fastest model of 32 × 32 pixels that reaches the lowest floor is recommended,
together with the most accurate one.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.report.efficiency import FLOORS, Entry, accuracy_text, entries
from bench.report.formats import (
    REQUESTS_PER_S_SHARED,
    accuracy_with_interval,
    count,
    millions,
    percent,
    significant,
)
from bench.report.shown import CIFAR10, Shown, by_dataset, dataset_name
from bench.report.tables import Column, Table, words
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, TradeOff
from cifar10.predictor import CPU_PROVIDER

_CARD_TOLERANCE: Final = 0.001
"""Accuracy may differ from the card's by one image in a thousand, because two runtimes may break a
near tie differently."""


@dataclass(frozen=True)
class Budget:
    """A limit on one cost."""

    title: str
    trade_off: TradeOff
    limit: float
    """Milliseconds, bytes or multiply-accumulates."""


NO_LIMIT: Final = Budget("no limit", "latency", float("inf"))

BUDGETS: Final = (
    Budget("one image within 1 ms", "latency", 1),
    Budget("one image within 10 ms", "latency", 10),
    Budget("a file of at most 1 MB", "size", 1e6),
    Budget("a file of at most 10 MB", "size", 10e6),
    Budget("at most 15 M multiply-accumulates", "MACs", 15e6),
    NO_LIMIT,
)
"""15 M: the cost of MLPerf Tiny's own ResNet-8, rounded up."""


@dataclass(frozen=True)
class Pick:
    """The model to ship within one budget."""

    budget: Budget
    model: ModelResult | None
    """None: nothing measured fits."""
    as_accurate: tuple[ModelResult, ...]
    """Others in the budget that are not significantly less accurate than the best."""


def pick_for_budgets(results: Sequence[ModelResult]) -> list[Pick]:
    """Return the picks among the released models of one data set, on one provider.

    Args:
        results: as :func:`bench.rows.selection.select` orders them.
    """
    rivals = one_of_each(comparable([result for result in results if result.released]))
    return [_pick(budget, rivals) for budget in BUDGETS]


def comparable(results: Sequence[ModelResult]) -> list[ModelResult]:
    """Return the models that can be compared with each other: one provider, one set of images.

    The provider is the CPU's if any model ran on it, else that of the best model; the images are
    those of the group with most models.
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
    """Return whether their accuracies differ significantly."""
    test = first.against(second)
    if test is not None:
        return test.is_real
    # Rows without results for each image: the intervals have to do.
    one, other = first.accuracy, second.accuracy
    return bool(
        one and other and (one.top1.low > other.top1.high or other.top1.low > one.top1.high)
    )


def reaches_a_floor(model: ModelResult) -> bool:
    """Return whether its accuracy reaches the lowest of the floors; they are CIFAR-10's."""
    return dataset_name(model) != CIFAR10 or (model.share_right or 0.0) >= FLOORS[-1][0]


def _pick(budget: Budget, rivals: Sequence[ModelResult]) -> Pick:
    priced = [
        (cost, result)
        for result in rivals
        if (cost := result.cost_in(budget.trade_off)) is not None and cost <= budget.limit
    ]
    if not priced:
        return Pick(budget, None, ())
    best = max(priced, key=lambda pair: pair[1].share_right or 0.0)[1]
    equal = [pair for pair in priced if not told_apart(best, pair[1])]

    def price(pair: tuple[float, ModelResult]) -> tuple[float, float, float]:
        typical = pair[1].typical_latency_ms
        share = pair[1].share_right or 0.0
        return pair[0], float("inf") if typical is None else typical, -share

    cheapest = min(equal, key=price)[1]
    return Pick(budget, cheapest, tuple(one for _, one in equal if one is not cheapest))


@dataclass(frozen=True)
class Verdict:
    """Recommended models for one data set."""

    dataset: str
    picks: Sequence[Pick]
    apart: tuple[ModelResult, ...] = ()
    """Released models measured on another copy of the data set, which no pick considers."""
    good_enough: ModelResult | None = None
    """The fastest model that reaches the lowest floor; None where there are no floors."""

    @property
    def model(self) -> ModelResult | None:
        """The model to ship without a budget; None if no accuracy was measured."""
        return self.good_enough or self.picks[-1].model

    @property
    def title(self) -> str:
        """The recommendation in a few words of Markdown."""
        if self.model is None:
            return "no released model was measured"
        return f"`{self.model.model}`"

    @property
    def figures(self) -> list[tuple[str, str]]:
        """(figure, what it is) of the recommended model."""
        model = self.model
        if model is None or model.accuracy is None:
            return []
        top1 = model.accuracy.top1
        interval = f"{percent(top1.low)}–{percent(top1.high)}"
        typical = "mean" if model.exits_early else "p50"
        found = [
            (f"{percent(top1.accuracy)} %", f"of {count(top1.count)} test images ({interval})"),
            (f"{significant(model.typical_latency_ms)} ms", f"an image ({typical}, one core)"),
        ]
        if model.cost is not None:
            found.append((f"{millions(model.cost.size_bytes)} MB", "file"))
        if model.load is not None:
            found.append((count(model.load.request_rate), REQUESTS_PER_S_SHARED.lower()))
        return found

    @property
    def reason(self) -> str:
        """Why this model, in one sentence of Markdown."""
        pick = self.picks[-1]
        if pick.model is None:
            return "Measure the released models: `cifar10 bench all`."
        best, fast = pick.model, self.good_enough
        if fast is not None and fast is not best:
            times = (best.typical_latency_ms or 0.0) / (fast.typical_latency_ms or 1.0)
            return (
                f"The fastest released model of at least {percent(FLOORS[-1][0], 0)} %. "
                f"`{best.model}` is right on {percent(best.share_right)} % and takes "
                f"{significant(times)} times as long."
            )
        if not pick.as_accurate:
            return "No other released model is as accurate."
        others = _listed([f"`{one.model}`" for one in pick.as_accurate])
        return f"{others} {'is' if len(pick.as_accurate) == 1 else 'are'} slower and not "\
               f"significantly more accurate."  # fmt: skip

    @property
    def not_compared(self) -> str:
        """Names and accuracies of the released models left out, in Markdown; else empty."""
        model = self.model
        if not self.apart or model is None or model.dataset is None:
            return ""
        named = [
            f"`{one.model}` ({percent(one.share_right)} % of {one.dataset.variant})"
            for one in self.apart
            if one.dataset is not None
        ]
        return f"Measured on other images, so not compared: {_listed(named)}."


def verdicts(shown: Shown) -> list[Verdict]:
    """Return one verdict for each data set that a released model is for."""
    found = by_dataset(shown.subjects) or {CIFAR10: []}
    return [_verdict(name, models) for name, models in found.items()]


def _good_enough(dataset: str, models: Sequence[ModelResult]) -> ModelResult | None:
    rivals = one_of_each(comparable([one for one in models if one.released]))
    reaching = [
        one for one in rivals if one.typical_latency_ms is not None and reaches_a_floor(one)
    ]
    if dataset != CIFAR10 or not reaching:
        return None
    return min(reaching, key=lambda one: one.typical_latency_ms or 0.0)


def _verdict(dataset: str, models: Sequence[ModelResult]) -> Verdict:
    picks = pick_for_budgets(models)
    good_enough = _good_enough(dataset, models)
    model = good_enough or picks[-1].model
    apart = [
        one
        for one in models
        if model is not None
        and one.accuracy is not None
        and (one.provider, one.released) == (model.provider, True)
        and one.dataset not in (None, model.dataset)
    ]
    return Verdict(dataset, picks, tuple(apart), good_enough)


def headline(found: Sequence[Verdict]) -> str:
    """Return the title of the report, in Markdown."""
    known = [one for one in found if one.model is not None]
    if not known:
        return "No released model has an accuracy and a latency on this machine"
    if not any(one.model is not None and reaches_a_floor(one.model) for one in known):
        return f"No released model measured here reaches {percent(FLOORS[-1][0], 0)} %"
    if len(known) == 1:
        return f"Ship {known[0].title}"
    return "Ship " + _listed([f"{one.title} for {one.dataset}" for one in known])


def better_if_trained(verdict: Verdict, reports: Sequence[Shown]) -> str:
    """Return the most accurate recipe that is not released, if it beats the verdict's model."""
    model = verdict.model
    if model is None:
        return ""
    rivals: list[tuple[float, Entry, Shown]] = []
    for shown in reports:
        for entry in entries([one for one in shown.models if not one.released]):
            result = entry.result
            if result in shown.others and result.dataset == model.dataset and result.share_right:
                mean = statistics.fmean(entry.seed_accuracies or [result.share_right])
                if mean > (model.share_right or 0.0) and told_apart(model, result):
                    rivals.append((mean, entry, shown))
    if not rivals:
        return ""
    _, entry, shown = max(rivals, key=lambda one: one[0])
    result = entry.result
    size = millions(result.cost.size_bytes) if result.cost else "?"
    return (
        f"More accurate, if you train it: `{result.recipe}`, {accuracy_text(entry)} %, "
        f"{significant(result.typical_latency_ms)} ms on {shown.results.machine.cpu}, {size} MB."
    )


def budget_table(verdict: Verdict) -> Table[Pick]:
    """Return the table of what to ship within each budget."""

    def ship(pick: Pick) -> str:
        if pick.model is None:
            return "nothing measured fits"
        name = f"`{pick.model.model}`"
        return name if reaches_a_floor(pick.model) else f"none (nearest: {name})"

    def accuracy(pick: Pick) -> str:
        known = pick.model.accuracy if pick.model else None
        return accuracy_with_interval(known.top1 if known else None)

    columns: list[Column[Pick]] = [
        words("Budget", lambda pick: pick.budget.title),
        words("Ship", ship),
        Column("Accuracy, %", accuracy),
        Column("One image, ms",
               lambda pick: significant(pick.model.typical_latency_ms if pick.model else None)),
        words("Equally accurate, higher cost",
              lambda pick: ", ".join(f"`{one.model}`" for one in pick.as_accurate) or "none"),
    ]  # fmt: skip
    return Table(columns, verdict.picks)


def warnings(shown: Shown) -> list[str]:
    """Return what contradicts the figures of the released models, in Markdown."""
    found = []
    for result in shown.subjects:
        accuracy, check = result.accuracy, result.verify
        if (
            accuracy is not None
            and accuracy.card_accuracy is not None
            and abs(accuracy.top1.accuracy - accuracy.card_accuracy) > _CARD_TOLERANCE
        ):
            found.append(
                f"**`{result.model}` does not reach the accuracy on its card**: "
                f"{percent(accuracy.top1.accuracy)} % measured, "
                f"{percent(accuracy.card_accuracy)} % on the card, on the same images."
            )
        if check is not None and not check.is_verified:
            found.append(
                f"**The server of `{result.model}` differs**: {count(check.same_top1)} of "
                f"{count(check.images)} images get the same class as in process; "
                f"{count(check.server_correct)} are right through the server, "
                f"{count(check.in_process_correct)} in process."
            )
    return found


def verified(shown: Shown) -> str:
    """Return which models answer the same over HTTP as in process."""
    names = [
        f"`{one.model}`" for one in shown.subjects if one.verify is not None
        and one.verify.is_verified
    ]  # fmt: skip
    if not names:
        return ""
    return f"Every test image gets the same class over HTTP as in process: {_listed(names)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
