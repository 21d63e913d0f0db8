"""Train many recipes in turn; a failure becomes a row and the rest continue.

Finished models are skipped and interrupted ones continue, so that the same command completes a
study that was killed at any time.
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
    """Result of one model: a record, or an error."""

    name: str
    record: TrainingRecord | None
    error: str | None
    already_there: bool
    seconds: float
    """Wall-clock time of this run, including the computation of features."""


class StudyObserver(Observer):
    """Observer that is also notified of the models."""

    def model_started(self, planned: Planned, number: int, count: int) -> None:
        """Report that model ``number`` (from 1) of ``count`` is next."""

    def model_finished(self, row: StudyRow) -> None:
        """Report that a model is done or has failed."""


def plan(recipes: Sequence[Recipe], seeds: Sequence[int], *, smoke: bool = False) -> list[Planned]:
    """Return every recipe with every seed; all recipes of one seed come before the next seed.

    A model is named after its recipe, with ``_smoke`` and, except for seed 0, ``_seed<N>`` added.
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
    """Train all planned models.

    Args:
        planned: planned models, in order.
        dataset: the whole data set.
        store: model store to write to.
        smoke: train each recipe's smoke form, on its few images.
        weights: weights of the backbones.
        observer: receives the progress.
        train_one: trains one model, as :func:`training.run.train` does.
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
        except Exception as unexpected:  # such as out of memory; the others may succeed
            logger.exception("%s failed", one.name)
            error = f"{type(unexpected).__name__}: {unexpected}"
        seconds = time.perf_counter() - started
        row = StudyRow(one.name, record, error, already_there, seconds)
        rows.append(row)
        observer.model_finished(row)
        keras.backend.clear_session()  # otherwise the graphs of all models would stay in memory
    return rows
