"""What a model answered on each image, small enough for a row of results."""

import base64

import numpy as np
from numpy.typing import NDArray


def pack_hits(right: NDArray[np.bool_]) -> str:
    """Boolean (N,) as base64 of its bits, the first image in the highest bit."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpack_hits(text: str, count: int) -> NDArray[np.bool_]:
    """The ``count`` booleans that :func:`pack_hits` made ``text`` of.

    Raises:
        ValueError: there are fewer.
    """
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
    if bits.size < count:
        message = f"expected {count:,} hits, there are {bits.size:,}"
        raise ValueError(message)
    return bits[:count].astype(np.bool_)


def pack_classes(predicted: NDArray[np.integer]) -> str:
    """Class ids (N,), 0–9, as base64 of one byte each."""
    return base64.b64encode(predicted.astype(np.uint8).tobytes()).decode("ascii")


def unpack_classes(text: str) -> NDArray[np.uint8]:
    """The class ids, uint8 (N,), that :func:`pack_classes` made ``text`` of."""
    return np.frombuffer(base64.b64decode(text), np.uint8)
