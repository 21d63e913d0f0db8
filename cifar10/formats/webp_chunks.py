"""Read the chunks of a WebP file: its size and its metadata.

The decoder allocates the whole canvas when it is created, so the size is read beforehand.

Sources: RFC 9649 (container, lossless), RFC 6386, section 9.1 (lossy).
"""

import struct
from typing import Final

from cifar10.formats.orientation import orientation_of
from cifar10.image_layout import ImageLayout

MAX_CHUNKS: Final = 1_024
"""Maximum number of chunks searched for metadata, which follows the picture, or all frames of an
animation."""

_FIRST_CHUNK: Final = 12


def webp_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like a WebP. Never raises; takes linear time.

    Returns:
        The layout, or None if the size cannot be read.
    """
    size = _size(data)
    if size is None:
        return None
    exif = xmp = None
    if data[_FIRST_CHUNK : _FIRST_CHUNK + 4] == b"VP8X":
        exif, xmp = _metadata(data)
    ends = struct.unpack_from("<I", data, 4)[0] + 8 <= len(data)
    return ImageLayout("WEBP", *size, data, orientation=orientation_of(exif, xmp), ends=ends)


def _size(data: bytes) -> tuple[int, int] | None:
    head = data[:30]
    kind = head[12:16]
    if kind == b"VP8X" and len(head) == 30:
        width = int.from_bytes(head[24:27], "little") + 1
        return width, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L" and len(head) >= 25 and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(head) == 30 and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _metadata(data: bytes) -> tuple[bytes | None, bytes | None]:
    """Return (EXIF block, XMP packet), each None if missing."""
    found: dict[bytes, bytes] = {}
    position = _FIRST_CHUNK
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        kind = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        if kind in (b"EXIF", b"XMP "):
            found.setdefault(kind, data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    return found.get(b"EXIF"), found.get(b"XMP ")
