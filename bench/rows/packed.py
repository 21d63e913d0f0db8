"""Raw times as short text: what lets every sample of a run stay in its row.

Times are whole microseconds, unsigned 32 bits, little endian; the four byte planes one after the
other (the high ones are nearly all zero), deflated, in base 85. About two bytes a sample.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import BenchError


def pack_times_us(times_us: Sequence[float] | NDArray[Any]) -> str:
    """Times in µs (0 to 4,294 s), in their own order, as text."""
    values = np.rint(np.asarray(times_us, np.float64)).astype("<u4")
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, 4).T)
    return base64.b85encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def unpack_times_us(text: str) -> NDArray[np.float64]:
    """The times in µs that :func:`pack_times_us` packed: float64 (N,), whole numbers.

    Raises:
        BenchError: the text is not what that function makes.
    """
    try:
        planes = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8).reshape(4, -1)
    except (ValueError, zlib.error, binascii.Error) as error:
        message = f"packed samples are damaged: {error}"
        raise BenchError(message) from error
    return np.ascontiguousarray(planes.T).view("<u4").ravel().astype(np.float64)
