"""The contract of a graph: one input of images, one output of probabilities, and their limits.

Height, width and labels belong to the model and are on its card. This module has what all graphs
share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE

ImageShape = tuple[int, int, int]
"""Height, width and channels of an image; the channels are RGB, so always 3."""

MIN_SIDE: Final = 8
MAX_SIDE: Final = 1024
"""Smallest and largest height and width of a model's input, in pixels."""

MIN_CLASSES: Final = 2
MAX_CLASSES: Final = 1000


@dataclass(frozen=True)
class TensorSpec:
    """Description of a tensor in Open Inference Protocol v2 terms; -1 in ``shape`` is the batch
    size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def input_tensor(image_shape: ImageShape) -> TensorSpec:
    """Return the input of a graph for images of this shape: RGB, 0–255."""
    return TensorSpec("image", "UINT8", (-1, *image_shape))


def output_tensor(class_count: int) -> TensorSpec:
    """Return the output of a graph for this many classes: one row per image, summing to 1."""
    return TensorSpec("probabilities", "FP32", (-1, class_count))


INPUT: Final = input_tensor(IMAGE_SHAPE)
"""Input of a CIFAR-10 graph. Name and datatype are the same for every graph."""

OUTPUT: Final = output_tensor(CLASS_COUNT)
"""Output of a CIFAR-10 graph. Name and datatype are the same for every graph."""


def broken_shape(shape: Sequence[object]) -> str | None:
    """Return why images of this shape (without the batch) cannot be a model's input, or None."""
    if len(shape) == 3 and shape[2] == 3:
        sides = shape[:2]
        if all(isinstance(side, int) and MIN_SIDE <= side <= MAX_SIDE for side in sides):
            return None
    return (
        f"the shape of an image is {tuple(shape)}, expected (height, width, 3) with height and "
        f"width from {MIN_SIDE} to {MAX_SIDE}"
    )


def is_probabilities(shape: Sequence[object]) -> bool:
    """Return whether a tensor of this shape (with the batch) has one value for each class."""
    return len(shape) == 2 and isinstance(shape[1], int) and MIN_CLASSES <= shape[1] <= MAX_CLASSES


def broken_labels(labels: Sequence[str]) -> str | None:
    """Return why these cannot be a model's labels, or None."""
    if not MIN_CLASSES <= len(labels) <= MAX_CLASSES:
        return f"there are {len(labels):,} labels, expected {MIN_CLASSES} to {MAX_CLASSES:,}"
    if not all(label.strip() for label in labels):
        return f"label {next(k for k, label in enumerate(labels) if not label.strip())} is empty"
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        return f"the label {twice!r} occurs twice"
    return None
