"""The data set of ``photo``, the model for photographs: CIFAR-10's classes and ``none``.

Photographs are used for validation and testing, never for training. The training part of the data
set is enlarged CIFAR-10 images, which also calibrate the activations of an int8 variant.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar10.dataset import Dataset, Split
from cifar10.errors import DataError
from cifar10.labels import LABELS
from cifar10.verdict import REJECTION

PHOTO: Final = "photo"
"""Name of the model, and of what stands for its recipe."""

DATASET: Final = "photographs"
"""Name of the data set."""

PHOTO_LABELS: Final = tuple(sorted((*LABELS, REJECTION)))
"""Labels in alphabetical order, as for any folder of images."""

RESOLUTION: Final = 224
"""Height and width of its input, in pixels."""

_TRAIN_IMAGES: Final = 1_000


def with_tiles(photographs: Dataset, tiles: Dataset) -> Dataset:
    """Return photographs for validation and test, and enlarged CIFAR-10 images for training.

    Args:
        photographs: a data set with the labels of ``photo``, at its resolution.
        tiles: CIFAR-10.

    Raises:
        DataError: the photographs have other classes.
    """
    if photographs.labels != PHOTO_LABELS:
        message = (
            f"the photographs' classes are {', '.join(photographs.labels)}; expected a folder for "
            f"each of {', '.join(PHOTO_LABELS)}"
        )
        raise DataError(message)
    parts = (photographs.train, photographs.validation)
    validation = Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    class_ids = np.array([PHOTO_LABELS.index(label) for label in LABELS], np.uint16)
    train = Split(
        enlarged(tiles.train.images[:_TRAIN_IMAGES]), class_ids[tiles.train.labels[:_TRAIN_IMAGES]]
    )
    record = replace(
        photographs.record,
        train_count=len(train.labels),
        validation_count=len(validation.labels),
    )
    return replace(photographs, train=train, validation=validation, record=record)


def enlarged(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return CIFAR-10 images at the resolution of ``photo``, uint8 (N, 224, 224, 3), bicubic."""
    size = (RESOLUTION, RESOLUTION)
    return np.stack(
        [np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BICUBIC)) for tile in tiles]
    )
