"""A recipe and a dataset small enough to train in a second, for this process and for children."""

import os
import signal
import sys
from pathlib import Path

from cifar10.card import Parameters
from cifar10.dataset import Dataset, split_dataset, synthetic_arrays
from cifar10.store import ModelStore
from training.observer import Observer
from training.recipes import Phase, Recipe, SimpleCnn, Smoke

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


def tiny_dataset() -> Dataset:
    """270 train, 30 validation, 50 test images."""
    raw = synthetic_arrays(train_per_class=30, test_per_class=5)
    return split_dataset(raw, source="synthetic", variant="synthetic")


class KilledAt(Observer):
    """Kills its own process, as `kill -9` does, in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self._at = (epoch, step)
        self._epoch = 0

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        self._epoch = epoch

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        if (self._epoch, step) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from training.run import train

    models, epoch, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    train(TINY, tiny_dataset(), ModelStore(models), observer=KilledAt(epoch, step))
