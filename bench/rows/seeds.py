"""Groups of trainings of one recipe that differ only in their seed."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rows.selection import ModelResult
from cifar10.card import training_fields


@dataclass(frozen=True)
class SeedGroup:
    """Trainings of one recipe at one precision, on one provider and the same images."""

    recipe: str
    precision: str
    models: tuple[ModelResult, ...]
    """One model for each seed, lowest first; each has an accuracy."""

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 accuracies, 0–1, in the order of :attr:`models`."""
        return tuple(one.accuracy.top1.accuracy for one in self.models if one.accuracy is not None)

    @property
    def mean(self) -> float:
        """Mean of the accuracies."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds (n − 1); None for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.models) > 1 else None


def seed_groups(results: Sequence[ModelResult]) -> list[SeedGroup]:
    """Return a group for each recipe that has an accuracy, in the order of the results."""
    groups: dict[tuple[object, ...], dict[int | None, ModelResult]] = {}
    for result in results:
        key = _key(result)
        if key is not None and result.cost is not None and result.accuracy is not None:
            key = (*key, result.dataset)
            groups.setdefault(key, {}).setdefault(result.cost.seed, result)
    return [
        SeedGroup(
            str(key[0]), str(key[1]), tuple(found[seed] for seed in sorted(found, key=_order))
        )
        for key, found in groups.items()
    ]


def one_of_each(results: Sequence[ModelResult]) -> list[ModelResult]:
    """Return the results with only the lowest seed of each recipe.

    Repeated curves and bars of one recipe would hide the others.
    """
    lowest: dict[tuple[object, ...], int | None] = {}
    for result in results:
        key = _key(result)
        if key is not None and result.cost is not None:
            seeds = [result.cost.seed, *([lowest[key]] if key in lowest else [])]
            lowest[key] = min(seeds, key=_order)
    return [
        result
        for result in results
        if (key := _key(result)) is None or result.cost is None or result.cost.seed == lowest[key]
    ]


def _key(result: ModelResult) -> tuple[object, ...] | None:
    if result.cost is None:
        return None
    return result.cost.recipe, result.cost.precision, result.provider, _content(result)


def _content(result: ModelResult) -> str:
    """Return the recipe's fields at training time; a recipe changed since counts as another one."""
    fields = (result.training.recipe_fields if result.training else None) or {}
    return json.dumps(training_fields(fields), sort_keys=True)


def _order(seed: int | None) -> int:
    return -1 if seed is None else seed
