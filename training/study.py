"""Train many recipes, one after another; a failure is a row, not the end.

Whatever is finished is left alone and whatever was interrupted goes on, so that the same command
completes a study that was killed at any moment.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from cifar10.card import TrainingRecord
from cifar10.dataset import Dataset
from cifar10.errors import Cifar10Error
from cifar10.store import ModelStore
from training.networks.backbones import WeightsChoice
from training.observer import Observer
from training.recipes.schema import Recipe
from training.run import Outcome, train
from training.smoke import cut_down

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """One model of a study."""

    name: str
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class StudyRow:
    """What came of one model: a record, or an error."""

    name: str
    record: TrainingRecord | None
    error: str | None
    already_there: bool
    seconds: float
    """Wall clock of this run, computing features included."""


class StudyObserver(Observer):
    """An observer that is also told which model comes next."""

    def model_started(self, planned: Planned, number: int, count: int) -> None:
        """Model ``number`` (1-based) of ``count`` is next."""

    def model_finished(self, row: StudyRow) -> None:
        """A model is done, or has failed."""


def plan(recipes: Sequence[Recipe], seeds: Sequence[int], *, smoke: bool = False) -> list[Planned]:
    """Every recipe with every seed, the seeds outermost: a whole table comes first.

    A model is named after its recipe; ``_smoke`` and, but for seed 0, ``_seed<N>`` are added.
    """
    return [
        Planned(
            f"{recipe.name}{'_smoke' if smoke else ''}{f'_seed{seed}' if seed else ''}",
            recipe,
            seed,
        )
        for seed in seeds
        for recipe in recipes
    ]


def run_study(
    planned: Sequence[Planned],
    dataset: Dataset,
    store: ModelStore,
    *,
    smoke: bool = False,
    weights: WeightsChoice = WeightsChoice(),
    observer: StudyObserver = StudyObserver(),
    train_one: Callable[..., Outcome] = train,
) -> list[StudyRow]:
    """Train all that is planned.

    Args:
        planned: the models, in order.
        dataset: the whole dataset.
        store: where they go.
        smoke: train each recipe's smoke form, on its few images.
        weights: of the backbones.
        observer: told what happens.
        train_one: trains one; :func:`training.run.train`.
    """
    rows = []
    for number, one in enumerate(planned, 1):
        observer.model_started(one, number, len(planned))
        started = time.perf_counter()
        record, error, already_there = None, None, False
        try:
            outcome = train_one(
                *cut_down(one.recipe, dataset, smoke=smoke, weights=weights),
                store,
                name=one.name,
                seed=one.seed,
                weights=weights,
                observer=observer,
            )
            record, already_there = outcome.record, outcome.already_there
        except Cifar10Error as expected:
            error = str(expected)
        except Exception as unexpected:  # out of memory, say: the other models can still be had
            logger.exception("%s failed", one.name)
            error = f"{type(unexpected).__name__}: {unexpected}"
        seconds = time.perf_counter() - started
        row = StudyRow(one.name, record, error, already_there, seconds)
        rows.append(row)
        observer.model_finished(row)
        keras.backend.clear_session()  # or the graphs of all models would stay in memory
    return rows
