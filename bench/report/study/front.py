"""The reference study's models on our trade-offs: printed accuracy at measured cost.

The cost of a study's model is that of our build of the same network, which does not depend on the
weights. Its accuracy is the study's own, on the study's images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.study.reference import STUDY, StudyResult
from bench.report.verdict import comparable
from bench.rows.seeds import one_of_each
from bench.rows.selection import TRADE_OFFS, ModelResult, TradeOff


@dataclass(frozen=True)
class Placed:
    """A model of the study and our build of it."""

    study: StudyResult
    ours: ModelResult
    """Model whose costs are measured; its accuracy is None if its weights are random."""

    def cost_in(self, trade_off: TradeOff) -> float | None:
        """Return the cost of our build; None if not measured."""
        return self.ours.cost_in(trade_off)


@dataclass(frozen=True)
class Domination:
    """A model that makes one of the study's superfluous."""

    by: ModelResult
    points: float
    """Lead of ``by`` in percentage points of accuracy."""
    times_cheaper: dict[TradeOff, float]
    """Cost of the study's model as a multiple of that of ``by``, where ``by`` costs no more."""


def repeats(result: ModelResult, study: StudyResult) -> bool:
    """Return whether it is our build of that model, at full precision."""
    return (
        study.recipe is not None
        and result.cost is not None
        and (result.cost.recipe, result.cost.precision) == (study.recipe, "fp32")
    )


def placed(results: Sequence[ModelResult]) -> list[Placed]:
    """Return the study's models of which a build of ours was measured.

    Args:
        results: as :func:`bench.rows.selection.select` orders them: of several seeds the one with a
            measured latency, else the most accurate, gives the costs.
    """
    found = []
    for study in STUDY:
        ours = [result for result in results if repeats(result, study)]
        if ours:
            timed = [result for result in ours if result.latency_ms(50) is not None]
            found.append(Placed(study, (timed or ours)[0]))
    return found


def dominations(one: Placed, results: Sequence[ModelResult]) -> list[Domination]:
    """Return the model that dominates it in every cost known of both, else the best for each cost.

    A model dominates if it is at least as accurate as the study printed and costs no more; of
    several the most accurate is returned. Our builds of the same network are no rivals.
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
    """Return the costs known of both."""
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
