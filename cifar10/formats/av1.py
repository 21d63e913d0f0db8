"""Read what decoding an AV1 stream costs: its frames, and the largest that its header allows.

Source: AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.5.
"""

from collections.abc import Iterator
from typing import Final

from cifar10.formats.bits import Bits

MAX_OBUS: Final = 4_096
"""Maximum number of units read. A still picture has a handful, or one for each tile group."""

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def decoded_pixels(stream: bytes) -> int | None:
    """Return the pixels that a decoder of ``stream`` computes at most, over all of its frames.
    Never raises; takes linear time.

    Returns:
        Their number; None if the stream has no header, no frame or too many units.
    """
    most = frames = 0
    for count, (kind, content) in enumerate(_units(stream)):
        if kind < 0 or count == MAX_OBUS:
            return None
        if kind == _SEQUENCE_HEADER:
            size = _frame_size(content)
            if size is None:
                return None
            most = max(most, size[0] * size[1])
        frames += kind in (_FRAME_HEADER, _FRAME)
    return frames * most or None


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of each unit; type -1 where the stream is damaged."""
    position = 0
    while position < len(stream):
        header = stream[position]
        position += 2 if header & 4 else 1
        length = len(stream) - position
        if header & 2:
            length = shift = 0
            for _ in range(8):
                if position >= len(stream):
                    yield -1, b""
                    return
                byte = stream[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        # A sequence header has some twenty bytes; of other units only the type is needed.
        yield header >> 3 & 15, stream[position : position + min(length, 128)]
        position += length


def _frame_size(header: bytes) -> tuple[int, int] | None:
    """Return the largest (width, height) that a sequence header allows (section 5.5.1)."""
    bits = Bits(header)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced still picture header
        bits.take(5)
    else:
        delay_bits = _skip_timing(bits)
        if delay_bits is None:
            return None
        has_display_delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay_bits and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if has_display_delay and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    size = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    return size if bits.left >= 0 else None


def _skip_timing(bits: Bits) -> int | None:
    """Skip the timing and decoder model; return the bits of a buffer delay, 0 without a model, and
    None if it is damaged."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):  # equal picture interval: a number in Exp-Golomb code
        zeros = 0
        while bits.left > 0 and not bits.take(1):
            zeros += 1
        if zeros >= 32:  # of such a number, decoders disagree about the length
            return None
        bits.take(zeros)
    if not bits.take(1):
        return 0
    delay_bits = bits.take(5) + 1
    bits.take(32 + 5 + 5)
    return delay_bits
