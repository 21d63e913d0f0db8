"""Facts about a model that need no measurement: its static cost and its training record."""

import csv
import io
import logging

from bench.rows.kinds.cost import CostMeasurement, EpochFigures, TrainingMeasurement
from cifar10.card import ModelCard
from cifar10.errors import BenchError
from cifar10.store import HISTORY_FILE, ModelStore, StoredModel

logger = logging.getLogger(__name__)


def has_random_weights(card: ModelCard) -> bool:
    """Return whether the model was never trained, so that only its cost may be shown."""
    return card.weights is not None and card.weights.random


def measure_cost(model: StoredModel) -> CostMeasurement:
    """Return parameters, multiply-accumulates and bytes from the card, checked against the file.

    Raises:
        BenchError: the file's size differs from the card's.
    """
    card = model.card
    if len(model.onnx) != card.size_bytes:
        message = (
            f"{card.name}: model.onnx has {len(model.onnx):,} bytes, its card says "
            f"{card.size_bytes:,}. Run: cifar10 export {card.name}"
        )
        raise BenchError(message)
    return CostMeasurement(
        recipe=card.recipe,
        precision=card.precision,
        parameters_total=card.parameters.total,
        parameters_trainable=card.parameters.trainable,
        macs=card.macs,
        size_bytes=card.size_bytes,
        random_weights=has_random_weights(card),
        training_epochs=card.training.epochs,
        training_seconds=card.training.seconds,
        training_hardware=card.training.hardware,
        seed=card.seed,
        second_looks=card.early_exit.second_looks if card.early_exit is not None else None,
    )


def read_training(store: ModelStore, card: ModelCard) -> TrainingMeasurement:
    """Return the card's training figures, and the epochs from ``history.csv`` if it exists.

    The history of a model with random weights is meaningless and left out. An unreadable history is
    logged and left out, because the measurement does not depend on it.
    """
    accuracy = card.accuracy
    return TrainingMeasurement(
        seconds_per_epoch=card.training.seconds_per_epoch,
        best_epoch=card.training.best_epoch,
        train_accuracy=accuracy.train.accuracy if accuracy and accuracy.train else None,
        validation_accuracy=accuracy.validation.accuracy if accuracy else None,
        test_accuracy=accuracy.test.accuracy if accuracy else None,
        epochs=() if has_random_weights(card) else _read_epochs(store, card),
        recipe_fields=card.recipe_fields,
    )


def _read_epochs(store: ModelStore, card: ModelCard) -> tuple[EpochFigures, ...]:
    path = store.folder(card.name) / HISTORY_FILE
    try:
        text = path.read_text(encoding="utf-8")
        return tuple(
            EpochFigures(
                float(row["accuracy"]),
                float(row["validation_accuracy"]),
                float(row["loss"]),
                float(row["validation_loss"]),
                row["phase"],
            )
            for row in csv.DictReader(io.StringIO(text))
        )
    except FileNotFoundError:
        return ()
    except (OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is left out: %s", path, error)
        return ()
