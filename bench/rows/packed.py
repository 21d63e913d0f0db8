"""Compact text encodings of arrays, so that a row can keep every sample.

Times are whole microseconds, unsigned 32 bits, little endian; the four byte planes follow one
another (the high ones are nearly all zero), deflated, in base 85: about two bytes a sample. Hits
are one bit an image and class ids one byte, in base 64.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import BenchError

_WIDE: Final = "2:"


def pack_times_us(times_us: Sequence[float] | NDArray[Any]) -> str:
    """Encode times in µs (0 to 4,294 s), in their own order."""
    values = np.rint(np.asarray(times_us, np.float64)).astype("<u4")
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, 4).T)
    return base64.b85encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def unpack_times_us(text: str) -> NDArray[np.float64]:
    """Decode the output of :func:`pack_times_us`: float64 (N,), whole µs.

    Raises:
        BenchError: the text is not output of that function.
    """
    try:
        planes = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8).reshape(4, -1)
    except (ValueError, zlib.error, binascii.Error) as error:
        message = f"packed samples are damaged: {error}"
        raise BenchError(message) from error
    return np.ascontiguousarray(planes.T).view("<u4").ravel().astype(np.float64)


def pack_hits(right: NDArray[np.bool_]) -> str:
    """Encode boolean (N,) as base64 of its bits, the first image in the highest bit."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpack_hits(text: str, count: int) -> NDArray[np.bool_]:
    """Decode the first ``count`` booleans from :func:`pack_hits`.

    Raises:
        ValueError: there are fewer than ``count``.
    """
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
    if bits.size < count:
        message = f"expected {count:,} hits, there are {bits.size:,}"
        raise ValueError(message)
    return bits[:count].astype(np.bool_)


def pack_classes(predicted: NDArray[np.integer]) -> str:
    """Encode class ids (N,) as base64 of one byte each; after ``2:``, of two bytes each, little
    endian, if there are ids above 255."""
    if predicted.size and predicted.max() > 255:
        return _WIDE + base64.b64encode(predicted.astype("<u2").tobytes()).decode("ascii")
    return base64.b64encode(predicted.astype(np.uint8).tobytes()).decode("ascii")


def unpack_classes(text: str) -> NDArray[np.integer]:
    """Decode the output of :func:`pack_classes`: unsigned integers (N,)."""
    if text.startswith(_WIDE):
        return np.frombuffer(base64.b64decode(text.removeprefix(_WIDE)), "<u2")
    return np.frombuffer(base64.b64decode(text), np.uint8)
