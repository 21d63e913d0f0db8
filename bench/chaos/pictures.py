"""Images of plain colours that are far more expensive to decode than their size suggests."""

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image

SCANS: Final = 9_000
PROGRESSIVE_SIDE: Final = 4_096
WEBP_SIDE: Final = 4_898
"""Side of a 24-megapixel image, the maximum that is decoded at full scale."""
BASELINE_SIDE: Final = 8_000
"""Side of a 64-megapixel image, the maximum for a baseline JPEG."""
_SOF0, _SOF2, _SOS, _EOI = 0xC0, 0xC2, 0xDA, 0xD9


@dataclass(frozen=True)
class Segment:
    """One marker segment of a JPEG; a scan includes the coded data after it."""

    marker: int
    content: bytes
    """Content without marker and length."""
    coded: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the segment as bytes of a file."""
        length = len(self.content) + 2
        return bytes((0xFF, self.marker)) + length.to_bytes(2, "big") + self.content + self.coded


def segments(jpeg: bytes) -> Iterator[Segment]:
    """Return the segments of a well-formed JPEG, from after SOI to before EOI."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != _EOI:
        marker = jpeg[at + 1]
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        coded_end = end
        if marker == _SOS:
            while coded_end + 1 < len(jpeg):
                if jpeg[coded_end] == 0xFF and not _continues(jpeg[coded_end + 1]):
                    break
                coded_end += 1
        yield Segment(marker, jpeg[at + 4 : end], jpeg[end:coded_end])
        at = coded_end


def _continues(following: int) -> bool:
    """Return whether FF and this byte are coded data: a stuffed zero or a restart marker."""
    return following == 0 or 0xD0 <= following <= 0xD7


def join(parts: list[Segment]) -> bytes:
    """Assemble a JPEG from these segments."""
    return b"\xff\xd8" + b"".join(part.to_bytes() for part in parts) + b"\xff\xd9"


@functools.cache
def progressive_bomb(scans: int = SCANS, side: int = PROGRESSIVE_SIDE) -> bytes:
    """Return a progressive JPEG that repeats its shortest scan.

    Each repetition is a pass over every block of the picture.
    """
    parts = list(segments(_encoded(side, "JPEG", progressive=True, quality=50)))
    shortest = min(
        (part for part in parts if part.marker == _SOS and part.content[2 * part.content[0] + 1]),
        key=lambda part: len(part.coded),
    )
    return join([*parts, *[shortest] * scans])


@functools.cache
def tiny_webp(side: int = WEBP_SIDE) -> bytes:
    """Return a WebP of 24 megapixels in a few dozen bytes."""
    return _encoded(side, "WEBP", lossless=True)


@functools.cache
def multi_scan_baseline(side: int = BASELINE_SIDE) -> bytes:
    """Return a baseline JPEG with a scan for each component.

    Its decoder must hold the whole picture, while one with a single scan is decoded row by row.

    The three components share the tables and the coded data of a grey picture.
    """
    grey = list(segments(_encoded(side, "JPEG", mode="L", quality=50)))
    made = []
    for part in grey:
        if part.marker == _SOF0:
            components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
            made.append(Segment(_SOF0, part.content[:5] + b"\x03" + components))
        elif part.marker == _SOS:
            made += [
                Segment(_SOS, bytes((1, number, 0, 0, 63, 0)), part.coded) for number in (1, 2, 3)
            ]
        else:
            made.append(part)
    return join(made)


@functools.cache
def multi_picture(side: int = BASELINE_SIDE) -> bytes:
    """Return an MPO file, as phones write, of two baseline JPEGs."""
    stream = io.BytesIO()
    picture = Image.new("RGB", (side, side), (90, 120, 60))
    small = Image.new("RGB", (64, 64))
    picture.save(stream, "MPO", save_all=True, append_images=[small], quality=50)
    return stream.getvalue()


def _encoded(side: int, kind: str, *, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, kind, **options)
    return stream.getvalue()
