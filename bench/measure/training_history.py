"""How a model was trained, read when it is measured: the report is made from rows alone."""

import csv
import io
import logging

from bench.rows.kinds.measurements import EpochFigures, TrainingMeasurement
from cifar10.card import ModelCard
from cifar10.store import HISTORY_FILE, ModelStore

logger = logging.getLogger(__name__)


def read_training(store: ModelStore, card: ModelCard) -> TrainingMeasurement:
    """The card's figures, and ``history.csv`` epoch by epoch where it is there.

    What a model with random weights got right while it trained is no one's business: left out. A
    history that cannot be read is reported and left out: it is not what is being measured.
    """
    accuracy = card.accuracy
    return TrainingMeasurement(
        seconds_per_epoch=card.training.seconds_per_epoch,
        best_epoch=card.training.best_epoch,
        train_accuracy=accuracy.train.accuracy if accuracy else None,
        validation_accuracy=accuracy.validation.accuracy if accuracy else None,
        test_accuracy=accuracy.test.accuracy if accuracy else None,
        epochs=() if card.weights is not None and card.weights.random else _epochs(store, card),
        recipe_fields=card.recipe_fields,
    )


def _epochs(store: ModelStore, card: ModelCard) -> tuple[EpochFigures, ...]:
    path = store.folder(card.name) / HISTORY_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as error:
        logger.warning("%s is left out: %s", path, error.strerror)
        return ()
    try:
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
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("%s is left out: %s", path, error)
        return ()
