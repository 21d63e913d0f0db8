"""Run a graph over many images in batches whose activations fit into memory at any image size."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.predictor import Predictor

_PIXELS: Final = 1 << 19
"""Maximum number of pixels in a batch. A convolution's activations take some hundred bytes a
pixel."""

_MOST: Final = 250


def batch_size(images: NDArray[Any], most: int = _MOST) -> int:
    """Return the batch size for ``images``, (N, H, W, 3): at most ``most``, at least 1.

    If fewer than ``most`` fit, it is a power of two: TensorFlow 2.21 on an AMD EPYC computes
    MobileNetV2 wrongly for batches of exactly 10 images of 224 × 224 pixels, and correctly for 5,
    8, 16, 20, 32 and 256.
    """
    height, width = (int(side) for side in images.shape[1:3])
    fit = max(1, _PIXELS // (height * width))
    return min(most, 1 << (fit.bit_length() - 1))


def predict(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities for ``images``, float32 (N, classes)."""
    size = batch_size(images)
    starts = range(0, len(images), size)
    return np.concatenate([predictor.predict(images[start : start + size]) for start in starts])
