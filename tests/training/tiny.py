"""A recipe and a data set small enough to train in a second, also in child processes."""

import os
import signal
import sys
from pathlib import Path

from cifar10.card import Parameters
from cifar10.dataset import Dataset, split_dataset, synthetic_arrays
from cifar10.store import ModelStore
from training.recipes.schema import (
    Augmentation,
    OneCycle,
    Phase,
    PooledNetwork,
    Recipe,
    SimpleCnn,
    Smoke,
)
from training.study import Planned, StudyObserver, plan, run_study

TINY = Recipe(
    name="tiny",
    source="these tests",
    expected_test_accuracy=(0.0, 1.0),
    cost="a second",
    architecture=SimpleCnn(filters=(4, 8), dense_units=16),
    expected_parameters=Parameters(8_786, 8_786, 0),
    batch_size=32,
    phases=(
        Phase(name="first", epochs=2, learning_rate=3e-3, patience=2),
        Phase(name="second", epochs=2, learning_rate=1e-3, patience=2),
    ),
    smoke=Smoke(epochs=1, train_images=64, evaluation_images=20),
)

TINY_SCHEDULED = Recipe(
    name="tiny_scheduled",
    source="these tests",
    expected_test_accuracy=(0.0, 1.0),
    cost="seconds",
    architecture=PooledNetwork(widths=(4, 8), blocks=1),
    expected_parameters=Parameters(1_434, 1_378, 56),
    batch_size=32,
    phases=(
        Phase(
            name="all",
            epochs=4,
            learning_rate=0.1,
            patience=4,
            schedule=OneCycle(rise=0.25, momentum=0.9, weight_decay=1e-3),
        ),
    ),
    smoke=Smoke(epochs=1, train_images=64, evaluation_images=20),
    augmentation=Augmentation(shift=2, flip=True, jpeg=0.3, resize=0.3, light=0.3),
    label_smoothing=0.1,
)
"""All that :data:`TINY` does without: a schedule, batch normalization, changed images."""

TINY_RECIPES = {recipe.name: recipe for recipe in (TINY, TINY_SCHEDULED)}


def tiny_study() -> list[Planned]:
    """Return two recipes with two seeds each."""
    return plan((TINY, TINY_SCHEDULED), (0, 1))


def tiny_dataset() -> Dataset:
    """Return a data set of 270 train, 30 validation and 50 test images."""
    raw = synthetic_arrays(train_per_class=30, test_per_class=5)
    return split_dataset(raw, source="synthetic", variant="synthetic")


class KilledAt(StudyObserver):
    """Observer that kills its own process in the middle of an epoch, as `kill -9` does."""

    def __init__(self, epoch: int, step: int, model: str | None = None) -> None:
        """Kill the process at this epoch and step; in a study, those of ``model``."""
        self._at = (model, epoch, step)
        self._model: str | None = None
        self._epoch = 0

    def model_started(self, planned: Planned, number: int, count: int) -> None:
        self._model = planned.name

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        self._epoch = epoch

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        if (self._model, self._epoch, step) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from training.run import train

    store, epoch, step = ModelStore(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    killed_in = sys.argv[4]
    if sys.argv[5:] == ["study"]:
        run_study(tiny_study(), tiny_dataset(), store, observer=KilledAt(epoch, step, killed_in))
    else:
        train(TINY_RECIPES[killed_in], tiny_dataset(), store, observer=KilledAt(epoch, step))
