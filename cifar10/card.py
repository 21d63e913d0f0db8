"""The model card: the one description of a model, and the training record it grows from.

``training/`` leaves a :class:`TrainingRecord` (``training.json``) beside the Keras file;
``export/`` adds what it knows of the graph and writes the :class:`ModelCard` (``card.json``)
last. Both are validated on reading.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cifar10.accuracy import Accuracy
from cifar10.errors import InvalidCardError
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS
from cifar10.records import RecordError, from_json

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class TensorSpec:
    """A tensor in Open Inference Protocol v2 terms; -1 in ``shape`` is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


INPUT: Final = TensorSpec("image", "UINT8", (-1, *IMAGE_SHAPE))
"""What every graph takes: RGB, 0–255."""

OUTPUT: Final = TensorSpec("probabilities", "FP32", (-1, CLASS_COUNT))
"""What every graph gives: one row per image, summing to 1."""


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of the Keras model."""

    total: int
    trainable: int
    non_trainable: int


@dataclass(frozen=True)
class DatasetRecord:
    """Which images: an accuracy is meaningless without this."""

    source: str
    variant: str
    fingerprint: str
    train_count: int
    validation_count: int
    test_count: int


@dataclass(frozen=True)
class AccuracyRecord:
    """Top-1 accuracy of the kept weights on each split, through Keras."""

    train: Accuracy
    validation: Accuracy
    test: Accuracy
    overfitting_gap: float
    """Train minus test accuracy, as a fraction (0.174 is 17.4 points)."""


@dataclass(frozen=True)
class TrainingCost:
    """What the training took."""

    epochs: int
    best_epoch: int
    """1-based; the epoch whose weights were kept."""
    seconds: float
    """Wall time spent in training epochs, over all resumed runs."""
    seconds_per_epoch: tuple[float, ...]
    resumed: int
    """How often the training was picked up again after an interruption."""
    backend: str
    hardware: str


@dataclass(frozen=True)
class WeightsRecord:
    """Where pretrained weights came from."""

    backbone: str
    source: str
    sha256: str
    random: bool
    """True: no pretrained weights were used, and no accuracy may be shown."""


@dataclass(frozen=True)
class TrainingRecord:
    """``training.json``: everything known about a trained model before it is exported."""

    schema_version: int
    name: str
    recipe: str
    recipe_fields: dict[str, Any]
    seed: int
    commit: str
    created: str
    """UTC, ISO 8601."""
    preprocessing: str
    """In words: what the layers inside the model do to the pixels."""
    parameters: Parameters
    weights: WeightsRecord | None
    dataset: DatasetRecord
    accuracy: AccuracyRecord | None
    """None for a model whose weights are random: it has a cost and no accuracy."""
    training: TrainingCost
    keras_sha256: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Parity:
    """How closely ONNX Runtime repeats Keras on the same images."""

    images: str
    image_count: int
    max_absolute_difference: float
    """Of probabilities, 0–1."""
    top1_agreement: float
    """Fraction of the images on which both name the same class."""


@dataclass(frozen=True)
class Golden:
    """The answer to :func:`cifar10.golden.golden_images`, checked before a server is ready."""

    probabilities: tuple[tuple[float, ...], ...]
    tolerance: float
    """The largest absolute difference accepted, for another machine's arithmetic."""


@dataclass(frozen=True)
class ModelCard:
    """``card.json``: the one description of a servable model."""

    schema_version: int
    name: str
    recipe: str
    recipe_fields: dict[str, Any]
    seed: int
    commit: str
    created: str
    labels: tuple[str, ...]
    input: TensorSpec
    output: TensorSpec
    preprocessing: str
    precision: str
    """``fp32``, ``int8`` or ``fp16``."""
    parameters: Parameters
    macs: int
    """Multiply-accumulates for one image."""
    size_bytes: int
    """Of ``model.onnx``."""
    opset: int
    sha256: str
    """Of ``model.onnx``, lower-case hexadecimal."""
    parity: Parity
    golden: Golden
    weights: WeightsRecord | None
    dataset: DatasetRecord
    accuracy: AccuracyRecord | None
    """None for a model whose weights are random: it has a cost and no accuracy."""
    training: TrainingCost
    versions: dict[str, str]


def read_training_record(text: str | bytes) -> TrainingRecord:
    """Validate ``training.json``.

    Raises:
        InvalidCardError: naming the field that is wrong.
    """
    return _read(TrainingRecord, text)


def read_card(text: str | bytes) -> ModelCard:
    """Validate ``card.json``.

    Raises:
        InvalidCardError: naming the field that is wrong.
    """
    card = _read(ModelCard, text)
    if card.labels != LABELS:
        message = f"card of {card.name!r}: labels are {card.labels}, expected {LABELS}"
        raise InvalidCardError(message)
    for found, expected in ((card.input, INPUT), (card.output, OUTPUT)):
        if found != expected:
            message = f"card of {card.name!r}: tensor is {found}, the contract is {expected}"
            raise InvalidCardError(message)
    if not re.fullmatch(r"[0-9a-f]{64}", card.sha256):
        message = f"card of {card.name!r}: sha256 is {card.sha256!r}, expected 64 hex digits"
        raise InvalidCardError(message)
    return card


R = TypeVar("R", ModelCard, TrainingRecord)


def _read(kind: type[R], text: str | bytes) -> R:
    try:
        record = from_json(kind, text)
    except RecordError as error:
        message = f"{error}. Make the file again with `python -m export` or `python -m training`."
        raise InvalidCardError(message) from error
    if record.schema_version != SCHEMA_VERSION:
        message = (
            f"{kind.__name__} of {record.name!r} has schema version {record.schema_version}, "
            f"this code reads {SCHEMA_VERSION}. Make the file again."
        )
        raise InvalidCardError(message)
    return record
