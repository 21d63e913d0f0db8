"""CIFAR-10's own values: its ten classes, in the order of their ids, and the shape of its images.

A model's labels and image shape are on its card; only CIFAR-10's data and recipes use these.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from typing import Final

LABELS: Final[tuple[str, ...]] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Class names; the position is the class id, 0–9."""

DATASET_NAME: Final = "cifar10"
"""Name of the data set on cards and rows."""

CLASS_COUNT: Final = len(LABELS)

IMAGE_SIZE: Final = 32
"""Height and width of an image, in pixels."""

IMAGE_SHAPE: Final = (IMAGE_SIZE, IMAGE_SIZE, 3)
"""Height, width, channels (RGB)."""
