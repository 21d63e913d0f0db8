"""Write a training's curves for TensorBoard, and record the training in MLflow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import keras

from cifar10.card import DatasetRecord, TrainingRecord
from cifar10.store import HISTORY_FILE, TRAINING_FILE
from cifar10.tracking import Tracker, tracker
from training.history import EpochRow
from training.recipes.schema import Recipe, recipe_fields

Told = Callable[[EpochRow], None]
"""Function that is called with each finished epoch; in a resumed training, first with the earlier
ones."""

_VALIDATION: Final = "validation_"


@contextmanager
def tensorboard_curves(folder: Path) -> Iterator[Told]:
    """Yield a function that writes an epoch's figures to event files in ``folder``, with Keras' own
    callback.

    The callback is not given to ``fit``, which is called once an epoch, without validation images.
    """
    callback = keras.callbacks.TensorBoard(str(folder), write_graph=False)
    # It asks a model only for its optimizer's learning rate, which is in the figures already.
    callback.set_model(SimpleNamespace(optimizer=None))
    callback.on_train_begin()

    def write(row: EpochRow) -> None:
        figures = {
            name.replace(_VALIDATION, "val_"): value for name, value in _figures(row).items()
        }
        callback.on_epoch_end(row.epoch, figures)

    try:
        yield write
    finally:
        callback.on_train_end()


def mlflow_run(
    name: str, recipe: Recipe, dataset: DatasetRecord, seed: int, precision: str
) -> Tracker | None:
    """Return the tracker of a training; None if ``MLFLOW_TRACKING_URI`` is not set."""
    parameters = {
        "recipe": recipe.name, "seed": seed, "precision": precision, "dataset": asdict(dataset),
    } | recipe_fields(recipe)  # fmt: skip
    return tracker(name, parameters)


def epochs_for(run: Tracker) -> Told:
    """Return a function that records an epoch's figures in MLflow."""
    return lambda row: run.metrics(_figures(row) | {"seconds": row.seconds}, row.epoch)


def finish(run: Tracker, record: TrainingRecord, folder: Path) -> None:
    """Record a finished training's accuracies and files in MLflow."""
    run.is_of(record.keras_sha256)
    if record.accuracy is not None:
        run.metrics({"test_accuracy": record.accuracy.test.accuracy}, record.training.epochs)
    run.files(folder / TRAINING_FILE, folder / HISTORY_FILE)


def _figures(row: EpochRow) -> dict[str, float]:
    return {
        "loss": row.loss,
        "accuracy": row.accuracy,
        f"{_VALIDATION}loss": row.validation_loss,
        f"{_VALIDATION}accuracy": row.validation_accuracy,
        "learning_rate": row.learning_rate,
    }
