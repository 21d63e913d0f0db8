"""The model card, the single description of a model, and the training record it is made from.

``training/`` writes a :class:`TrainingRecord` (``training.json``) next to the Keras file.
``export/`` adds the properties of the graph and writes the :class:`ModelCard` (``card.json``) last.
Both are validated when read.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar

from cifar10.accuracy import Accuracy
from cifar10.contract import (
    ImageShape,
    TensorSpec,
    broken_labels,
    broken_shape,
    input_tensor,
    output_tensor,
)
from cifar10.errors import InvalidCardError
from cifar10.image_layout import Fit, Target
from cifar10.labels import DATASET_NAME, IMAGE_SHAPE, LABELS
from cifar10.paired import PairedTest
from cifar10.records import RecordError, from_json
from cifar10.verdict import REJECTION, Calibration

SCHEMA_VERSION: Final = 1

MAX_TOLERANCE: Final = 0.1
"""Largest difference of probabilities that a card may allow its golden answer. int8 needs 0.02."""

Precision = Literal["fp32", "int8", "fp16"]
"""Number format of the weights and of most arithmetic. Input and output have the same format for
all."""


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
    """The dataset that a model was trained and measured on."""

    source: str
    variant: str
    fingerprint: str
    train_count: int
    validation_count: int
    test_count: int
    name: str = DATASET_NAME
    """Name of the data set: ``cifar10`` for every copy of CIFAR-10 (``variant`` says which copy);
    for a user's own images, their name."""


@dataclass(frozen=True)
class AccuracyRecord:
    """Top-1 accuracy of the kept weights on each split, measured with Keras; of a variant, of its
    own file, with ONNX Runtime. ``train`` is None where those images are of another kind."""

    train: Accuracy | None
    validation: Accuracy
    test: Accuracy
    overfitting_gap: float | None
    """Train minus test accuracy, as a fraction (0.174 is 17.4 points)."""


@dataclass(frozen=True)
class TrainingCost:
    """Cost of a training."""

    epochs: int
    best_epoch: int
    """Number of the epoch whose weights were kept, counted from 1."""
    seconds: float
    """Wall time spent in training epochs, over all resumed runs."""
    seconds_per_epoch: tuple[float, ...]
    resumed: int
    """Number of times the training was resumed after an interruption."""
    backend: str
    hardware: str
    precision: str = "fp32"
    """Precision of layers in training: ``fp32``, or ``bf16`` with weights in float32."""
    devices: int = 1
    """Number of devices that shared each step; of a resumed training, in its last run."""


@dataclass(frozen=True)
class WeightsRecord:
    """Source of the pretrained weights."""

    backbone: str
    source: str
    sha256: str
    random: bool
    """Whether random weights were used in place of pretrained ones; no accuracy may then be
    shown."""


@dataclass(frozen=True)
class TeacherRecord:
    """The teacher of a distilled model: the model whose answers it was trained on."""

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
    """Time of creation: UTC, ISO 8601."""
    preprocessing: str
    """Description of the preprocessing layers inside the model."""
    parameters: Parameters
    weights: WeightsRecord | None
    dataset: DatasetRecord
    accuracy: AccuracyRecord | None
    """Accuracy; None for a model with random weights, of which only the cost is meaningful."""
    training: TrainingCost
    keras_sha256: str
    versions: dict[str, str]
    teacher: TeacherRecord | None = None
    labels: tuple[str, ...] = LABELS
    image_shape: ImageShape = IMAGE_SHAPE
    fit: Fit = "squash"
    """Method of fitting images of another aspect ratio to that shape."""


@dataclass(frozen=True)
class Parity:
    """Agreement of ONNX Runtime with Keras on the same images. For a variant, agreement with the
    model it was made from."""

    images: str
    image_count: int
    max_absolute_difference: float
    """Largest difference of any probability, 0–1."""
    top1_agreement: float
    """Fraction of images for which both predict the same class."""


@dataclass(frozen=True)
class Golden:
    """Answer to :func:`cifar10.golden.golden_images`, checked before a server is ready."""

    probabilities: tuple[tuple[float, ...], ...]
    tolerance: float
    """Largest absolute difference accepted, to allow for another machine's arithmetic."""


@dataclass(frozen=True)
class VariantRecord:
    """Origin of a variant at another precision, and the effect on its accuracy."""

    source: str
    """Name of the model it was made from."""
    source_sha256: str
    """SHA-256 of the source's ``model.onnx``."""
    method: str
    """Description of the conversion in words."""
    calibration_images: int
    """Number of training images used to calibrate activation ranges; 0 if none are needed."""
    validation: PairedTest | None
    """Comparison of source (first) and variant (second) on all validation images. None for a model
    with random weights."""


@dataclass(frozen=True)
class EarlyExit:
    """Rule by which a graph with two passes answers after the first."""

    confidence: float
    """Probability, 0–1, that some class must reach in the first pass to skip the second."""
    second_looks: float
    """Share of validation images that need the second pass, 0–1."""
    images: int
    """Number of validation images."""


@dataclass(frozen=True)
class ModelCard:
    """``card.json``: the single description of a servable model."""

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
    """Multiply-accumulates for one image; with an early exit, for an image that does not exit."""
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
    """Accuracy; None for a model with random weights, of which only the cost is meaningful."""
    training: TrainingCost
    """Cost of the training; for a variant, of its source's training."""
    versions: dict[str, str]
    variant: VariantRecord | None = None
    """Origin of a variant; None for a model as trained."""
    teacher: TeacherRecord | None = None
    """The teacher; None for a model trained on the true classes alone."""
    early_exit: EarlyExit | None = None
    """The early-exit rule; None for a graph that processes every image alike."""
    calibration: Calibration | None = None
    """Temperature in the graph and thresholds of the verdicts; None in older cards, and for a model
    with random weights."""
    fit: Fit = "squash"
    """Method of fitting an image of another aspect ratio to the graph's input."""

    @property
    def height(self) -> int:
        """Height of the images that the model takes, in pixels."""
        return self.input.shape[1]

    @property
    def width(self) -> int:
        """Width of the images that the model takes, in pixels."""
        return self.input.shape[2]

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of the images that the model takes."""
        return (self.height, self.width, 3)

    @property
    def target(self) -> Target:
        """The picture that images are decoded to."""
        return Target(self.width, self.height, self.fit)

    @property
    def has_rejection(self) -> bool:
        """Whether one label says "none of these"."""
        return REJECTION in self.labels


@dataclass(frozen=True)
class RefusedVariant:
    """``refused.json``: a variant that was made, measured and rejected."""

    reason: str
    """Reason for the rejection, on one line."""
    card: ModelCard
    """The card it would have had, without accuracy, which must not be shown."""


_ADDED_TO_BOTH_LATER: Final[dict[str, Any]] = {
    "teacher": None,
    "training": {"precision": "fp32", "devices": 1},
    "dataset": {"name": DATASET_NAME},
}

_ADDED_TO_TRAINING_LATER: Final = _ADDED_TO_BOTH_LATER | {
    "labels": list(LABELS),
    "image_shape": list(IMAGE_SHAPE),
    "fit": "squash",
}

_ADDED_LATER: Final = _ADDED_TO_BOTH_LATER | {
    "variant": None,
    "early_exit": None,
    "calibration": None,
    "fit": "squash",
}
"""Fields that older cards lack → values to use for them."""


def training_fields(recipe_fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe that affect training: all but the descriptive ones."""
    return {name: value for name, value in recipe_fields.items() if name not in DESCRIPTIVE_FIELDS}


def read_training_record(text: str | bytes) -> TrainingRecord:
    """Parse and validate ``training.json``.

    Raises:
        InvalidCardError: it is invalid; the message names the field.
    """
    return _read(TrainingRecord, text, _ADDED_TO_TRAINING_LATER)


def read_card(text: str | bytes) -> ModelCard:
    """Parse and validate ``card.json``.

    Raises:
        InvalidCardError: it is invalid; the message names the field.
    """
    card = _read(ModelCard, text, _ADDED_LATER)
    _check_contract(card)
    return card


def read_refused(text: str | bytes) -> RefusedVariant:
    """Parse and validate ``refused.json``.

    Raises:
        InvalidCardError: it is invalid; the message names the field.
    """
    try:
        refused = from_json(RefusedVariant, text, {"card": _ADDED_LATER})
    except RecordError as error:
        message = f"{error}. Make it again: cifar10 export NAME --int8 (or --fp16)"
        raise InvalidCardError(message) from error
    _check_contract(refused.card)
    return refused


def _check_contract(card: ModelCard) -> None:
    shape = card.input.shape[1:]
    for fault in (broken_labels(card.labels), broken_shape(shape)):
        if fault is not None:
            message = f"card of {card.name!r}: {fault}"
            raise InvalidCardError(message)
    for found, expected in (
        (card.input, input_tensor(card.image_shape)),
        (card.output, output_tensor(len(card.labels))),
    ):
        if found != expected:
            message = f"card of {card.name!r}: tensor is {found}, the contract is {expected}"
            raise InvalidCardError(message)
    if not re.fullmatch(r"[0-9a-f]{64}", card.sha256):
        message = f"card of {card.name!r}: sha256 is {card.sha256!r}, expected 64 hex digits"
        raise InvalidCardError(message)
    _check_numbers(card)


def _check_numbers(card: ModelCard) -> None:
    """Refuse impossible numbers, such as a tolerance with which any answer would pass the check."""
    golden = card.golden
    if not 0 <= golden.tolerance <= MAX_TOLERANCE:
        message = (
            f"card of {card.name!r}: golden.tolerance is {golden.tolerance:g}, "
            f"expected 0 to {MAX_TOLERANCE}"
        )
        raise InvalidCardError(message)
    classes = len(card.labels)
    widths = {len(row) for row in golden.probabilities}
    values = [value for row in golden.probabilities for value in row]
    if widths != {classes} or not all(0 <= value <= 1 for value in values):
        message = (
            f"card of {card.name!r}: golden.probabilities are {len(golden.probabilities)} rows of "
            f"{sorted(widths)} values, expected rows of {classes} values from 0 to 1"
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
            f"but this code reads {SCHEMA_VERSION}. Make the file again."
        )
        raise InvalidCardError(message)
    return record
