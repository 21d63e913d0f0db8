"""What an image file says of itself, read without decoding a pixel, and what decoding it will cost.

The three readers (:mod:`cifar10.jpeg_markers`, :mod:`cifar10.png_chunks`,
:mod:`cifar10.webp_chunks`) raise nothing on any input and take time linear in its length.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["JPEG", "PNG", "WEBP"]

# Measured on one core of a 2026 cloud machine, the slowest of smooth and noisy pictures of 12
# megapixels. Only ratios matter: what is admitted and who waits is decided with them.
_JPEG_SECONDS_PER_BYTE: Final = 15e-9
_JPEG_SECONDS_PER_PIXEL: Final = 1e-9
"""For each scan: even an empty one visits every block."""
_WHOLE_PASSES: Final = 3
"""What a JPEG that is held whole costs beyond its scans, in passes over its pixels."""
_OTHER_SECONDS_PER_PIXEL: Final = 45e-9
_CUT_SHORT_FACTOR: Final = 3
"""A JPEG without its end marker is decoded more than once, to see whether all else is there."""


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """What decoding needs to know of an image file beforehand."""

    kind: Kind
    width: int
    height: int
    data: bytes
    """The file."""
    pieces: tuple[bytes | memoryview, ...] = ()
    """The file without its metadata; empty where there is none. Not joined before it is decoded, so
    that an image which waits for that is not held twice."""
    orientation: int = 1
    """EXIF 2.32, tag 0x0112: 1 to 8."""
    scans: int = 1
    """Passes over the whole picture (JPEG)."""
    streamed: bool = False
    """Whether it can be decoded row by row and at reduced scale, so that it is never held whole."""
    ends: bool = True
    """Whether the file has the end that its type demands."""

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def content(self) -> bytes:
        """What a decoder is given: the file, or a copy of it without metadata."""
        return b"".join(self.pieces) if self.pieces else self.data

    @property
    def seconds(self) -> float:
        """About the CPU time that decoding takes."""
        if self.kind != "JPEG":
            return self.pixels * _OTHER_SECONDS_PER_PIXEL
        passes = self.scans if self.streamed else self.scans + _WHOLE_PASSES
        once = len(self.data) * _JPEG_SECONDS_PER_BYTE
        once += self.pixels * passes * _JPEG_SECONDS_PER_PIXEL
        return once if self.ends else once * _CUT_SHORT_FACTOR
