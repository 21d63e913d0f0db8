"""Read the camera's orientation from EXIF or XMP metadata.

Only this number is read, from at most :data:`MAX_ENTRIES` entries: a general EXIF parser spends
milliseconds on a hostile block and fails on a damaged one. Never raises.
"""

import re
import struct
from typing import Final

UPRIGHT: Final = 1

MAX_ENTRIES: Final = 512
"""Maximum number of EXIF entries read. A camera writes about a dozen into the first directory,
sorted by tag; orientation comes early."""

_TAG: Final = 0x0112
_VALUE_CODES: Final = {1: "B", 3: "H", 4: "I"}
"""TIFF 6.0 type (BYTE, SHORT, LONG) → format character of ``struct``."""

_IN_XMP: Final = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def exif_orientation(exif: bytes) -> int | None:
    """Read the orientation in an EXIF block, with or without its ``Exif`` prefix.

    Returns:
        1 to 8 (EXIF 2.32, tag 0x0112), or None if it is missing or the block is damaged.
    """
    tiff = memoryview(exif)[6:] if exif[:6] == b"Exif\0\0" else memoryview(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    entry = struct.Struct(f"{order}HHI")
    for index in range(min(count, MAX_ENTRIES)):
        position = start + 2 + 12 * index
        if position + 12 > len(tiff):
            return None
        tag, kind, values = entry.unpack_from(tiff, position)
        if tag == _TAG:
            code = _VALUE_CODES.get(kind)
            if code is None or values < 1:
                return None
            (value,) = struct.unpack_from(f"{order}{code}", tiff, position + 8)
            return int(value) if 1 <= value <= 8 else None
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """Read the orientation in an XMP packet: 1 to 8, or None if there is none."""
    found = _IN_XMP.search(xmp)
    return int(found[1]) if found else None


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """Return EXIF's orientation if it has one, else XMP's, else :data:`UPRIGHT`."""
    if exif:
        found = exif_orientation(exif)
        if found is not None:
            return found
    return (xmp_orientation(xmp) if xmp else None) or UPRIGHT
