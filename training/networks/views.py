"""Classify an image and its mirror image in one graph: twice the work, no more parameters."""

from typing import Any

import keras


def both_views(image: Any, shift: int) -> Any:
    """Return the images, (N, H, W, 3), followed by their mirror images: (2 N, H, W, 3).

    Args:
        image: the model's input.
        shift: pixels by which the mirror image is shifted up and left; opposite edges are
            reflected.
    """
    return keras.ops.concatenate([image, _mirror(image, shift)], axis=0)


def mean_of_views(pooled: Any) -> Any:
    """Return the mean of the pooled features of both views: (2 N, channels) → (N, channels)."""
    return keras.ops.mean(keras.ops.reshape(pooled, (2, -1, pooled.shape[-1])), axis=0)


def _mirror(image: Any, shift: int) -> Any:
    if not shift:
        return image[:, :, ::-1]
    height, width = image.shape[1:3]
    rows = _moved(height, shift)
    columns = [width - 1 - column for column in _moved(width, shift)]
    return keras.ops.take(keras.ops.take(image, rows, axis=1), columns, axis=2)


def _moved(length: int, shift: int) -> list[int]:
    """Return the source index of each position."""
    last = length - 1
    return [last - abs(last - place - shift) for place in range(length)]
