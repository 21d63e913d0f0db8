"""Read the header of a BMP file.

Source: https://learn.microsoft.com/windows/win32/gdi/bitmap-storage
"""

import struct
from typing import Final

from cifar10.image_layout import ImageLayout

_PLAIN: Final = frozenset((0, 3, 6))
"""Compressions without compression: BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS. Pillow decodes the
others, run lengths, in Python, a thousand times as slowly."""

_OLD_HEADER: Final = 12
_LEAST_HEADER: Final = 40


def bmp_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like a BMP. Never raises.

    Returns:
        The layout, or None if the size cannot be read or the pixels are compressed.
    """
    if len(data) < 34:
        return None
    (header,) = struct.unpack_from("<I", data, 14)
    if header == _OLD_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
        return ImageLayout("BMP", width, height, data)
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data, 30)
    if header < _LEAST_HEADER or compression not in _PLAIN or width < 1 or not height:
        return None
    return ImageLayout("BMP", width, abs(height), data)  # negative: rows from the top
