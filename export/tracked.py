"""Record an exported model in MLflow: its card, its file and, if necessary, its training."""

import csv
import logging
from dataclasses import asdict

from cifar10.card import ModelCard, read_training_record
from cifar10.errors import InvalidCardError
from cifar10.store import (
    CARD_FILE,
    HISTORY_FILE,
    ONNX_FILE,
    README_FILE,
    TRAINING_FILE,
    ModelStore,
)
from cifar10.tracking import Tracker, tracker

_NO_FIGURES = ("epoch", "phase")
"""Columns of ``history.csv`` that are not recorded as figures."""

logger = logging.getLogger(__name__)


def record_export(card: ModelCard, store: ModelStore) -> None:
    """Add a model's card, README and ONNX file to the run of its training, or of its source's; if
    MLflow has none, make one with parameters and curves. Does nothing without
    ``MLFLOW_TRACKING_URI``."""
    source = card.variant.source if card.variant is not None else card.name
    source_sha256 = card.variant.source_sha256 if card.variant is not None else card.sha256
    parameters = {
        "recipe": card.recipe, "seed": card.seed, "dataset": asdict(card.dataset),
    } | card.recipe_fields  # fmt: skip
    run = tracker(source, parameters, _keras_sha256(store, source) or source_sha256)
    if run is None:
        return
    folder = store.folder(card.name)
    with run:
        if run.open() and run.is_new:
            _record_curves(run, store, source)
        figures = {"size_bytes": float(card.size_bytes), "macs": float(card.macs)}
        if card.accuracy is not None:
            figures["test_accuracy"] = card.accuracy.test.accuracy
        run.metrics({f"{card.precision}.{name}": value for name, value in figures.items()})
        run.files(
            *(folder / name for name in (ONNX_FILE, CARD_FILE, README_FILE)), folder=card.name
        )


def _keras_sha256(store: ModelStore, source: str) -> str | None:
    """Return the digest of the Keras file that was trained; None if its record is not here."""
    try:
        return read_training_record(
            (store.folder(source) / TRAINING_FILE).read_bytes()
        ).keras_sha256
    except (OSError, InvalidCardError):
        return None


def _record_curves(run: Tracker, store: ModelStore, source: str) -> None:
    path = store.folder(source) / HISTORY_FILE
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figures = {name: float(row[name]) for name in row if name not in _NO_FIGURES}
            run.metrics(figures, int(row["epoch"]))
