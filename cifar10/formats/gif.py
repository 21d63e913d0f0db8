"""Read the blocks of a GIF up to the end of its first frame, which is all that is decoded.

Source: GIF89a specification, W3C, https://www.w3.org/Graphics/GIF/spec-gif89a.txt
"""

import struct
from typing import Final

from cifar10.image_layout import ImageLayout

_HEADER_BYTES: Final = 13
_IMAGE, _EXTENSION, _GRAPHIC_CONTROL = 0x2C, 0x21, 0xF9
_END: Final = b"\0\x3b"
"""End of a frame's data, and of the file."""


def gif_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like a GIF. Never raises; takes linear time.

    Returns:
        The layout, or None if there is no frame.
    """
    if len(data) < _HEADER_BYTES:
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    position = _HEADER_BYTES + _colours_bytes(data[10])
    pieces: list[bytes | memoryview] = [data[:position]]
    while position + 10 <= len(data):
        kind = data[position]
        if kind == _EXTENSION:
            end, _ = _skip_blocks(data, position + 2)
            if data[position + 1] == _GRAPHIC_CONTROL:  # transparency; others are metadata
                pieces = [pieces[0], data[position:end]]
            position = end
        elif kind == _IMAGE:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
            begin = position + 10 + _colours_bytes(data[position + 9])
            end, ends = _skip_blocks(data, begin + 1)
            # Pillow grows the picture where a frame reaches beyond it.
            size = max(width, left + frame_width), max(height, top + frame_height)
            content = memoryview(data)[position : end - ends]
            return ImageLayout("GIF", *size, data, (*pieces, content, _END), ends=ends)
        else:
            return None
    return None


def _colours_bytes(flags: int) -> int:
    """Return the length of a colour table that follows, according to its flags."""
    return 3 << (1 + (flags & 7)) if flags & 0x80 else 0


def _skip_blocks(data: bytes, position: int) -> tuple[int, bool]:
    """Return the position after a sequence of data blocks, and whether its end is there."""
    while position < len(data):
        length = data[position]
        position += 1 + length
        if not length:
            return position, True
    return len(data), False
