"""Export one trained model: convert, verify, describe, then write.

Everything is checked in memory. The files are changed in an order that never leaves a card with a
graph that it does not describe: the old card is removed, the graph written, then the new card.
"""

import hashlib
import importlib.metadata
import logging
from datetime import UTC, datetime
from typing import Final

import keras
import onnxruntime

from cifar10.card import (
    SCHEMA_VERSION,
    Golden,
    ModelCard,
    TrainingRecord,
    read_card,
    read_training_record,
)
from cifar10.contract import input_tensor, output_tensor
from cifar10.dataset import Dataset
from cifar10.errors import DigestMismatchError, ExportError, InvalidCardError, ModelNotFoundError
from cifar10.golden import golden_images
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.store import (
    CARD_FILE,
    KERAS_FILE,
    ONNX_FILE,
    README_FILE,
    TRAINING_FILE,
    ModelStore,
    file_sha256,
    write_atomic,
)
from export.calibrate import calibrate
from export.convert import OPSET, convert
from export.macs import count_macs
from export.parity import ParityLimits, check_parity, limits_for
from export.readme import describe

logger = logging.getLogger(__name__)

GOLDEN_ROOM: Final = 10
"""Allowed error of a golden answer, in multiples of the parity limit.

It allows for another processor's or a GPU's arithmetic, and is still far below the error of a wrong
file, input layout or broken kernel.
"""


def export_model(
    name: str, store: ModelStore, dataset: Dataset, limits: ParityLimits | None = None
) -> ModelCard:
    """Export ``name``: write ``model.onnx``, then ``card.json``.

    Args:
        name: name of a finished training in ``store``.
        store: the model store.
        dataset: data set whose validation images are used to check parity.
        limits: allowed differences from Keras; None: those of the architecture.

    Raises:
        ModelNotFoundError: there is no finished training with that name.
        InvalidCardError: ``training.json`` is not a training record, or another model's.
        DigestMismatchError: ``model.keras`` is not the file that was trained.
        ExportError: the graph breaks the contract or parity. The store is unchanged.
    """
    record = training_record(name, store)
    limits = limits or limits_for(record)
    tolerance = GOLDEN_ROOM * limits_for(record).max_absolute_difference
    keras_file = store.folder(name) / KERAS_FILE
    logger.info("%s: converting to ONNX, opset %d", name, OPSET)
    model = keras.saving.load_model(keras_file, compile=False)
    graph = convert(model)
    onnx_bytes: bytes = graph.SerializeToString()
    predictor = Predictor(onnx_bytes, PredictorOptions(device="cpu"))
    description = f"validation images of {dataset.record.variant}"
    parity = check_parity(model, predictor, dataset.validation.images, description, limits)
    logger.info("%s: parity holds, %s", name, parity)
    random_weights = record.weights is not None and record.weights.random
    calibration = None
    if not random_weights:
        graph, calibration = calibrate(graph, dataset.validation, description, record.labels)
        onnx_bytes = graph.SerializeToString()
        predictor = Predictor(onnx_bytes, PredictorOptions(device="cpu"))
        logger.info("%s: %s", name, calibration)
    answers = predictor.predict(golden_images(predictor.image_shape))
    card = ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        recipe=record.recipe,
        recipe_fields=record.recipe_fields,
        seed=record.seed,
        commit=record.commit,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        labels=record.labels,
        input=input_tensor(predictor.image_shape),
        output=output_tensor(predictor.class_count),
        preprocessing=record.preprocessing,
        precision="fp32",
        parameters=record.parameters,
        macs=count_macs(graph),
        size_bytes=len(onnx_bytes),
        opset=OPSET,
        sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        parity=parity,
        golden=Golden(tuple(tuple(row) for row in answers.tolist()), tolerance),
        weights=record.weights,
        dataset=record.dataset,
        accuracy=None if random_weights else record.accuracy,
        training=record.training,
        versions=record.versions | _converter_versions(),
        teacher=record.teacher,
        calibration=calibration,
        fit=record.fit,
    )
    _write(card, onnx_bytes, store)
    return card


def training_record(name: str, store: ModelStore) -> TrainingRecord:
    """Return the record of a finished training whose Keras file is the one that was trained.

    Raises:
        ModelNotFoundError, InvalidCardError, DigestMismatchError
    """
    folder = store.folder(name)
    path = folder / TRAINING_FILE
    try:
        record = read_training_record(path.read_bytes())
    except FileNotFoundError:
        own = sorted(file.parent.name for file in store.root.glob(f"*_{name}/{TRAINING_FILE}"))
        remedy = f"Did you mean {' or '.join(own)}?" if own else f"Train it: cifar10 train {name}"
        message = f"no finished training of {name!r}: {path} is missing. {remedy}"
        raise ModelNotFoundError(message) from None
    except InvalidCardError as error:
        message = f"{path}: {error}"
        raise InvalidCardError(message) from error
    if record.name != name:
        message = f"{path} is the record of {record.name!r}, not of {name!r}"
        raise InvalidCardError(message)
    keras_file = folder / KERAS_FILE
    if not keras_file.is_file():
        message = f"{keras_file} is missing although {path} is there: put it back, or train again"
        raise ModelNotFoundError(message)
    found = file_sha256(keras_file)
    if found != record.keras_sha256:
        message = (
            f"{keras_file} has SHA-256 {found}, but {TRAINING_FILE} says {record.keras_sha256}: it "
            f"is not the model that was trained and measured. Put it back, or train again: "
            f"cifar10 train {record.recipe} --name {name} --restart"
        )
        raise DigestMismatchError(message)
    return record


def _converter_versions() -> dict[str, str]:
    return {
        "tf2onnx": importlib.metadata.version("tf2onnx"),
        "onnx": importlib.metadata.version("onnx"),
        "onnxruntime": onnxruntime.__version__,  # its distribution may be onnxruntime-gpu
    }


def _write(card: ModelCard, onnx_bytes: bytes, store: ModelStore) -> None:
    text = to_json(card)
    if read_card(text) != card:
        message = f"the card of {card.name!r} changes when written to JSON and read back"
        raise ExportError(message)
    folder = store.folder(card.name)
    (folder / CARD_FILE).unlink(missing_ok=True)
    write_atomic(folder / ONNX_FILE, onnx_bytes)
    write_atomic(folder / README_FILE, describe(card))
    write_atomic(folder / CARD_FILE, text)
