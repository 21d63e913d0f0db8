"""Golden images: pictures computed by a formula, whose answers are stored on every model's card.

A server is ready only when each model gives those answers on its machine. The images contain no
real data, only coloured waves and a few hard edges, enough to exercise every filter.
"""

import numpy as np
from numpy.typing import NDArray

from cifar10.contract import ImageShape
from cifar10.labels import IMAGE_SHAPE


def golden_images(shape: ImageShape = IMAGE_SHAPE) -> NDArray[np.uint8]:
    """Return four fixed pictures, uint8 (4, height, width, 3), RGB, the same on every machine.

    Only integer arithmetic is used, so rounding cannot differ.
    """
    rows, columns = np.indices(shape[:2], dtype=np.int64)
    pictures = []
    for step in range(1, 5):
        red = (rows * rows * step + columns * 7) % 256
        green = (columns * columns * (5 - step) + rows * 11 + 40 * step) % 256
        blue = ((rows // (2 * step) + columns // 8) % 2) * 200 + 13 * step
        pictures.append(np.stack([red, green, blue], axis=-1))
    return np.stack(pictures).astype(np.uint8)
