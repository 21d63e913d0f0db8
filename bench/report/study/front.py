"""The reference study's models on our trade-offs: their printed accuracy at our measured cost.

Of what a model of the study costs only our own build of the same network can tell: same layers,
same size, whatever its weights are. Its accuracy is the study's own, of the study's images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.recommend import comparable
from bench.report.study.reference import STUDY, StudyResult
from bench.rows.seeds import one_of_each
from bench.rows.selection import TRADE_OFFS, ModelResult, TradeOff


@dataclass(frozen=True)
class Placed:
    """A model of the study, and our build of it."""

    number: int
    """From 1, in the study's order."""
    study: StudyResult
    ours: ModelResult
    """Whose costs are measured; its own accuracy is None where its weights are random."""

    def cost_in(self, trade_off: TradeOff) -> float | None:
        """What our build costs there; None if not measured."""
        return self.ours.cost_in(trade_off)


@dataclass(frozen=True)
class Domination:
    """Why a model of the study need not be considered."""

    by: ModelResult
    points: float
    """By how many percentage points of accuracy ``by`` is ahead."""
    times_cheaper: dict[TradeOff, float]
    """Where ``by`` costs no more: the study's model's cost as a multiple of its."""


def repeats(result: ModelResult, study: StudyResult) -> bool:
    """Whether it is our build of that model, at full precision."""
    return (
        study.recipe is not None
        and result.cost is not None
        and (result.cost.recipe, result.cost.precision) == (study.recipe, "fp32")
    )


def placed(results: Sequence[ModelResult]) -> list[Placed]:
    """The study's models that a build of ours gives costs to.

    Args:
        results: as :func:`bench.rows.selection.select` orders them: of several seeds the one with a
            measured latency, else the most accurate, gives the costs.
    """
    found = []
    for number, study in enumerate(STUDY, start=1):
        ours = [result for result in results if repeats(result, study)]
        if ours:
            timed = [result for result in ours if result.latency_ms(50) is not None]
            found.append(Placed(number, study, (timed or ours)[0]))
    return found


def dominations(one: Placed, results: Sequence[ModelResult]) -> list[Domination]:
    """What beats it: the model that does so at every cost that is known of both; where there is
    none, for each cost the one that does so there.

    At least as accurate as the study printed, and no more costly. Of several the most accurate.
    Our own builds of the same network are no rivals, at whatever precision.
    """
    percent = one.study.test_percent
    if percent is None:
        return []
    rivals = [
        result
        for result in one_of_each(comparable(results))
        if result.accuracy is not None
        and result.accuracy.top1.accuracy * 100 >= percent
        and not (result.cost and result.cost.recipe == one.study.recipe)
    ]
    found = [Domination(rival, _points(rival, percent), _cheaper(one, rival)) for rival in rivals]
    everywhere = [each for each in found if _known(one, each.by) <= set(each.times_cheaper)]
    if everywhere:
        return [_best(everywhere)]
    somewhere = [
        _best([each for each in found if trade_off in each.times_cheaper])
        for trade_off in TRADE_OFFS
        if any(trade_off in each.times_cheaper for each in found)
    ]
    return list({each.by.model: each for each in somewhere}.values())


def _points(rival: ModelResult, percent: float) -> float:
    return (rival.accuracy.top1.accuracy * 100 if rival.accuracy else 0.0) - percent


def _known(one: Placed, rival: ModelResult) -> set[TradeOff]:
    """Costs known of both."""
    return {t for t in TRADE_OFFS if one.cost_in(t) is not None and rival.cost_in(t) is not None}


def _cheaper(one: Placed, rival: ModelResult) -> dict[TradeOff, float]:
    found = {}
    for trade_off in TRADE_OFFS:
        theirs, ours = one.cost_in(trade_off), rival.cost_in(trade_off)
        if theirs is not None and ours is not None and ours <= theirs and ours > 0:
            found[trade_off] = theirs / ours
    return found


def _best(found: Sequence[Domination]) -> Domination:
    return max(found, key=lambda each: (each.points, len(each.times_cheaper)))
