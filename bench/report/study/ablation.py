"""Ablation: pairs of models whose recipes differ in one factor, tested on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean

from bench.report.study.recipe_facts import TITLES, RecipeFacts, differing, facts_of
from bench.report.verdict import comparable
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult
from cifar10.paired import PairedTest


@dataclass(frozen=True)
class Subject:
    """A model and the factors of its recipe."""

    result: ModelResult
    facts: RecipeFacts

    @property
    def accuracy(self) -> float:
        """Top-1, 0–1."""
        return self.result.share_right or 0.0


@dataclass(frozen=True)
class Step:
    """Step from one model to another, with the factors that differ."""

    before: Subject
    after: Subject
    factors: tuple[str, ...]
    """Factors that differ, as keys of :data:`bench.report.study.recipe_facts.TITLES`."""
    test: PairedTest
    """Test of the second against the first: positive where the change helped."""

    def told(self) -> str:
        """Return the changes in words."""
        changes = [
            f"{self.before.facts.shown(factor)} → {self.after.facts.shown(factor)}"
            if factor not in ("augmentation", "optimisation")
            else TITLES[factor]
            for factor in self.factors
        ]
        return "; ".join(changes)


def subjects_of(results: Sequence[ModelResult]) -> list[Subject]:
    """Return the fp32 models with a backbone and an accuracy, one for each recipe."""
    return [
        Subject(result, facts)
        for result in one_of_each(comparable(results))
        if result.cost is not None
        and result.cost.precision == "fp32"
        and (facts := facts_of(result)) is not None
    ]


def single_changes(results: Sequence[ModelResult]) -> list[Step]:
    """Return the pairs that differ in one factor, by factor, the study's value first."""
    found = []
    for one, other in combinations(subjects_of(results), 2):
        if one.facts.backbone != other.facts.backbone:
            continue
        factors = differing(one.facts, other.facts)
        if len(factors) != 1:
            continue
        (factor,) = factors
        before, after = sorted((one, other), key=lambda each: each.facts.ordinal(factor))
        test = after.result.against(before.result)
        if test is not None:
            found.append(Step(before, after, factors, test))
    order = list(TITLES)
    return sorted(found, key=lambda step: order.index(step.factors[0]))


def way_to_the_best(results: Sequence[ModelResult]) -> list[Step]:
    """Return the steps from the reference study's frozen recipe to the best on the same backbone.

    Without the frozen recipe they start at the one that differs most from the best. Each recipe
    shares more with the best than the one before and changes as little as possible.
    """
    subjects = subjects_of(results)
    if not subjects:
        return []
    best = max(subjects, key=lambda each: each.accuracy)
    subjects = [each for each in subjects if each.facts.backbone == best.facts.backbone]

    def distance(each: Subject) -> int:
        return 0 if each is best else max(1, len(differing(each.facts, best.facts)))

    start = max(subjects, key=lambda each: (_is_the_studys(each), distance(each), -each.accuracy))
    chain = [start]
    while chain[-1] is not best:
        here = chain[-1]
        nearer = [each for each in subjects if distance(each) < distance(here)]
        chain.append(
            min(
                nearer,
                key=lambda each: (
                    len(differing(here.facts, each.facts)), -distance(each), -each.accuracy,
                ),
            )
        )  # fmt: skip
    steps = []
    for before, after in pairwise(chain):
        test = after.result.against(before.result)
        if test is not None:
            steps.append(Step(before, after, differing(before.facts, after.facts), test))
    return steps


def _is_the_studys(each: Subject) -> bool:
    cost = each.result.cost
    return cost is not None and cost.recipe == "mobilenetv2_frozen"


def mean_effect(steps: Sequence[Step]) -> float:
    """Return the mean difference, as a fraction."""
    return fmean(step.test.difference for step in steps)
