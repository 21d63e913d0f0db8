"""The model card: the one description of a model, and the training record it grows from.

``training/`` leaves a :class:`TrainingRecord` (``training.json``) beside the Keras file;
``export/`` adds what it knows of the graph and writes the :class:`ModelCard` (``card.json``)
last. Both are validated on reading.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar

from cifar10.accuracy import Accuracy
from cifar10.errors import InvalidCardError
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS
from cifar10.paired import PairedTest
from cifar10.records import RecordError, from_json

SCHEMA_VERSION: Final = 1

MAX_TOLERANCE: Final = 0.1
"""Largest difference of a probability that a card may allow to its golden answer. int8 models need
0.02."""

Precision = Literal["fp32", "int8", "fp16"]
"""Number format of the weights and of most arithmetic; input and output are the same for all."""


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


DESCRIPTIVE_FIELDS: Final = frozenset(("name", "source", "expected_test_accuracy", "cost", "smoke"))
"""Fields of a recipe that can be reworded without changing what is trained."""


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
    """Top-1 accuracy of the kept weights on each split: through Keras, or, for a variant, of its
    own file through ONNX Runtime."""

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
    precision: str = "fp32"
    """What layers computed in: ``fp32``, or ``bf16`` with weights in float32."""


@dataclass(frozen=True)
class WeightsRecord:
    """Where pretrained weights came from."""

    backbone: str
    source: str
    sha256: str
    random: bool
    """True: no pretrained weights were used, and no accuracy may be shown."""


@dataclass(frozen=True)
class TeacherRecord:
    """The model whose answers another was trained on."""

    name: str
    sha256: str
    """SHA-256 of its ``model.onnx``; of its ``model.keras`` where it answered through Keras."""


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
    """Description of what the layers inside the model do to the pixels."""
    parameters: Parameters
    weights: WeightsRecord | None
    dataset: DatasetRecord
    accuracy: AccuracyRecord | None
    """None for a model whose weights are random: it has a cost and no accuracy."""
    training: TrainingCost
    keras_sha256: str
    versions: dict[str, str]
    teacher: TeacherRecord | None = None


@dataclass(frozen=True)
class Parity:
    """How closely ONNX Runtime repeats Keras on the same images; for a variant, how closely it
    repeats the model that it was made from."""

    images: str
    image_count: int
    max_absolute_difference: float
    """Largest difference of any probability, 0–1."""
    top1_agreement: float
    """Fraction of the images on which both name the same class."""


@dataclass(frozen=True)
class Golden:
    """The answer to :func:`cifar10.golden.golden_images`, checked before a server is ready."""

    probabilities: tuple[tuple[float, ...], ...]
    tolerance: float
    """The largest absolute difference accepted, for another machine's arithmetic."""


@dataclass(frozen=True)
class VariantRecord:
    """What a variant at another precision was made from, and what that changed."""

    source: str
    """The model's name."""
    source_sha256: str
    """SHA-256 of the ``model.onnx`` that it was made from."""
    method: str
    """Description in words."""
    calibration_images: int
    """Training images from which the ranges of activations were taken; 0: none needed."""
    validation: PairedTest | None
    """On all validation images: the source is the first, the variant the second. None for a model
    whose weights are random."""


@dataclass(frozen=True)
class EarlyExit:
    """When a graph that could look at an image twice does so once."""

    confidence: float
    """0–1: where the first look gives no class this probability, there is a second."""
    second_looks: float
    """The share of validation images that it takes, 0–1."""
    images: int
    """Validation images."""


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
    precision: Precision
    parameters: Parameters
    macs: int
    """Multiply-accumulates for one image; with an early exit, for one that does not take it."""
    size_bytes: int
    """Size of ``model.onnx``."""
    opset: int
    sha256: str
    """SHA-256 of ``model.onnx``, lower-case hexadecimal."""
    parity: Parity
    golden: Golden
    weights: WeightsRecord | None
    dataset: DatasetRecord
    accuracy: AccuracyRecord | None
    """None for a model whose weights are random: it has a cost and no accuracy."""
    training: TrainingCost
    """What the training took; a variant has its source's."""
    versions: dict[str, str]
    variant: VariantRecord | None = None
    """None for a model as it was trained."""
    teacher: TeacherRecord | None = None
    """None for a model that was trained on the true classes alone."""
    early_exit: EarlyExit | None = None
    """None for a graph that does the same for every image."""


@dataclass(frozen=True)
class RefusedVariant:
    """``refused.json``: a variant that was made, measured and not kept."""

    reason: str
    """On one line."""
    card: ModelCard
    """What its card would have been, its accuracy left out: it is not to be shown."""


_ADDED_TO_TRAINING_LATER: Final[dict[str, Any]] = {
    "teacher": None,
    "training": {"precision": "fp32"},
}

_ADDED_LATER: Final[dict[str, Any]] = _ADDED_TO_TRAINING_LATER | {
    "variant": None,
    "early_exit": None,
}
"""Fields that older cards lack, with their values."""


def training_fields(recipe_fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe that change what is trained: all but the descriptive ones."""
    return {name: value for name, value in recipe_fields.items() if name not in DESCRIPTIVE_FIELDS}


def read_training_record(text: str | bytes) -> TrainingRecord:
    """Validate ``training.json``.

    Raises:
        InvalidCardError: naming the field that is wrong.
    """
    return _read(TrainingRecord, text, _ADDED_TO_TRAINING_LATER)


def read_card(text: str | bytes) -> ModelCard:
    """Validate ``card.json``.

    Raises:
        InvalidCardError: naming the field that is wrong.
    """
    card = _read(ModelCard, text, _ADDED_LATER)
    _check_contract(card)
    return card


def read_refused(text: str | bytes) -> RefusedVariant:
    """Validate ``refused.json``.

    Raises:
        InvalidCardError: naming the field that is wrong.
    """
    try:
        refused = from_json(RefusedVariant, text, {"card": _ADDED_LATER})
    except RecordError as error:
        message = f"{error}. Make it again: cifar10 export NAME --int8 (or --fp16)"
        raise InvalidCardError(message) from error
    _check_contract(refused.card)
    return refused


def _check_contract(card: ModelCard) -> None:
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
    _check_numbers(card)


def _check_numbers(card: ModelCard) -> None:
    """Refuse numbers with which a check of the model would pass whatever it answers."""
    golden = card.golden
    if not 0 <= golden.tolerance <= MAX_TOLERANCE:
        message = (
            f"card of {card.name!r}: golden.tolerance is {golden.tolerance:g}, "
            f"expected 0 to {MAX_TOLERANCE}"
        )
        raise InvalidCardError(message)
    widths = {len(row) for row in golden.probabilities}
    values = [value for row in golden.probabilities for value in row]
    if widths != {CLASS_COUNT} or not all(0 <= value <= 1 for value in values):
        message = (
            f"card of {card.name!r}: golden.probabilities are {len(golden.probabilities)} rows of "
            f"{sorted(widths)} values, expected rows of {CLASS_COUNT} values from 0 to 1"
        )
        raise InvalidCardError(message)
    counts = {"macs": card.macs, "size_bytes": card.size_bytes, "opset": card.opset}
    for name, count in (*counts.items(), *asdict(card.parameters).items()):
        if count < 0:
            message = f"card of {card.name!r}: {name} is {count}, expected 0 or more"
            raise InvalidCardError(message)


R = TypeVar("R", ModelCard, TrainingRecord)


def _read(kind: type[R], text: str | bytes, added_later: dict[str, Any] | None = None) -> R:
    try:
        record = from_json(kind, text, added_later)
    except RecordError as error:
        message = f"{error}. Make the file again with `cifar10 export` or `cifar10 train`."
        raise InvalidCardError(message) from error
    if record.schema_version != SCHEMA_VERSION:
        message = (
            f"{kind.__name__} of {record.name!r} has schema version {record.schema_version}, "
            f"this code reads {SCHEMA_VERSION}. Make the file again."
        )
        raise InvalidCardError(message)
    return record
