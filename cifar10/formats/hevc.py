"""Read what decoding an HEVC picture costs: its frames, and the largest that its headers allow.

Source: ITU-T H.265, sections 7.3.1 and 7.3.2.2; ISO/IEC 14496-15, section 8.3.3 (``hvcC``).
"""

from collections.abc import Iterator
from typing import Final

from cifar10.formats.bits import Bits

MAX_UNITS: Final = 4_096
"""Maximum number of units (NAL) read. A still picture has a handful, or one for each slice."""

_SEQUENCE_HEADER: Final = 33
_SLICES: Final = range(32)
_HEADER_BYTES: Final = 128
"""Bytes of a sequence header in which its size stands."""


def decoded_pixels(configuration: bytes, stream: bytes) -> int | None:
    """Return the pixels that a decoder computes at most, over all frames. Never raises; takes
    linear time.

    Args:
        configuration: content of the box ``hvcC``: headers that come before the stream.
        stream: units, each after its length.

    Returns:
        Their number; None if there is no header, no frame or too many units.
    """
    if len(configuration) < 23:
        return None
    most = frames = 0
    length_size = (configuration[21] & 3) + 1
    units = [*_headers(configuration), *_units(stream, length_size)]
    if len(units) > MAX_UNITS:
        return None
    for unit in units:
        if len(unit) < 3:
            continue
        kind, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
        if kind == _SEQUENCE_HEADER and layer == 0:
            pixels = _frame_pixels(unit[2:].replace(b"\0\0\3", b"\0\0"))
            if pixels is None:
                return None
            most = max(most, pixels)
        frames += kind in _SLICES and unit[2] >> 7  # the first slice of a frame
    return frames * most or None


def _headers(configuration: bytes) -> Iterator[bytes]:
    position = 23
    for _ in range(configuration[22]):
        count = int.from_bytes(configuration[position + 1 : position + 3], "big")
        position += 3
        for _ in range(min(count, MAX_UNITS + 1)):
            if position + 2 > len(configuration):
                return
            length = int.from_bytes(configuration[position : position + 2], "big")
            yield configuration[position + 2 : position + 2 + min(length, _HEADER_BYTES)]
            position += 2 + length


def _units(stream: bytes, length_size: int) -> Iterator[bytes]:
    position = 0
    for _ in range(MAX_UNITS + 1):
        start = position + length_size
        if start > len(stream):
            return
        length = int.from_bytes(stream[position:start], "big")
        yield stream[start : start + min(length, _HEADER_BYTES)]
        position = start + length


def _frame_pixels(header: bytes) -> int | None:
    """Return width times height of a sequence header (section 7.3.2.2.1)."""
    bits = Bits(header)
    bits.take(4)
    sub_layers = bits.take(3)
    bits.take(1 + 88 + 8)  # nesting, the general profile and level
    present = [(bits.take(1), bits.take(1)) for _ in range(sub_layers)]
    bits.take(2 * (8 - sub_layers) if sub_layers else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    _number(bits)
    if _number(bits) == 3:  # chroma format 4:4:4
        bits.take(1)
    pixels = _number(bits) * _number(bits)
    return pixels if bits.left >= 0 and pixels else None


def _number(bits: Bits) -> int:
    """Return a number in Exp-Golomb code (section 9.2)."""
    zeros = 0
    while bits.left > 0 and not bits.take(1):
        zeros += 1
    return (1 << zeros) - 1 + bits.take(zeros)
