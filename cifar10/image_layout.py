"""Layout of an image file, read without decoding a pixel, and the estimated cost of decoding it.

The three readers (:mod:`cifar10.jpeg_markers`, :mod:`cifar10.png_chunks`,
:mod:`cifar10.webp_chunks`) never raise, and take time linear in the input's length.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["JPEG", "PNG", "WEBP"]

Fit = Literal["squash", "crop"]
"""How an image of another aspect ratio is fitted to a model's input. ``squash`` resizes the whole
image. ``crop`` keeps the aspect ratio: the largest centred part of the input's shape is resized."""

# Measured on one core of a 2026 cloud machine: the slowest of smooth and noisy pictures of 12
# megapixels. Only the ratios matter: they decide which requests are admitted and which wait.
_JPEG_SECONDS_PER_BYTE: Final = 15e-9
_JPEG_SECONDS_PER_PIXEL: Final = 1e-9
"""Time per pixel and scan; even an empty scan visits every block."""
_WHOLE_PASSES: Final = 3
"""Extra cost of a JPEG that is held whole in memory, in passes over its pixels."""
_OTHER_SECONDS_PER_PIXEL: Final = 45e-9
_CUT_SHORT_FACTOR: Final = 3
"""Cost factor of a JPEG without its end marker, which is decoded more than once to check whether
anything else is missing."""


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """Properties of an image file that are needed before decoding it."""

    kind: Kind
    width: int
    height: int
    data: bytes
    """The file."""
    pieces: tuple[bytes | memoryview, ...] = ()
    """The file without its metadata, in pieces; empty if it has no metadata. Joined only for
    decoding, so that a waiting image is not in memory twice."""
    orientation: int = 1
    """EXIF 2.32, tag 0x0112: 1 to 8."""
    scans: int = 1
    """Number of scans of a JPEG; each is a pass over the whole picture."""
    streamed: bool = False
    """Whether it can be decoded row by row and at reduced scale, so that it is never in memory
    whole."""
    ends: bool = True
    """Whether the file has the end marker, or the full length, that its type requires."""

    @property
    def pixels(self) -> int:
        """Number of pixels: width times height."""
        return self.width * self.height

    @property
    def content(self) -> bytes:
        """Input of the decoder: the file, or a copy of it without metadata."""
        return b"".join(self.pieces) if self.pieces else self.data

    @property
    def seconds(self) -> float:
        """Estimated CPU time to decode the image."""
        if self.kind != "JPEG":
            return self.pixels * _OTHER_SECONDS_PER_PIXEL
        passes = self.scans if self.streamed else self.scans + _WHOLE_PASSES
        once = len(self.data) * _JPEG_SECONDS_PER_BYTE
        once += self.pixels * passes * _JPEG_SECONDS_PER_PIXEL
        return once if self.ends else once * _CUT_SHORT_FACTOR
