"""Layout of an image file, read without decoding a pixel, and the estimated cost of decoding it.

The readers (:mod:`cifar10.formats`) never raise, and take time linear in the input's length.
"""

from dataclasses import dataclass
from typing import Final, Literal

from cifar10.labels import IMAGE_SIZE

Kind = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "HEIC"]

Fit = Literal["squash", "crop"]
"""How an image of another aspect ratio is fitted to a model's input. ``squash`` resizes the whole
image. ``crop`` keeps the aspect ratio: the largest centred part of the input's shape is resized."""

# Measured on one core of a 2026 cloud machine: the slowest of smooth and noisy pictures of 12
# megapixels. Only the ratios matter: they decide which requests are admitted and which wait.
_JPEG_SECONDS_PER_BYTE: Final = 15e-9
_JPEG_SECONDS_PER_PIXEL: Final = 1e-9
"""Time per pixel and scan; even an empty scan visits every block."""
_JPEG_SECONDS_PER_REDUCED_PIXEL: Final = 10e-9
"""Time to transform and resize, per pixel at the scale at which it is decoded."""
_WHOLE_PASSES: Final = 3
"""Extra cost of a JPEG that is held whole in memory, in passes over its pixels."""
_OTHER_SECONDS_PER_PIXEL: Final = 45e-9
_SECONDS_PER_TARGET_PIXEL: Final = 15e-9
"""Time to resize, per pixel of the result."""
_AVIF_SECONDS_PER_PIXEL: Final = 25e-9
_AVIF_SECONDS_PER_BYTE: Final = 100e-9
_CUT_SHORT_FACTOR: Final = 3
"""Cost factor of a JPEG without its end marker, which is decoded more than once to check whether
anything else is missing."""

_SCALES: Final = (8, 4, 2)
"""Divisors of the reduced scales of JPEG decoders."""
_REDUCTION: Final = 2
"""Minimum ratio of decoded to target size. JPEGs are decoded at the smallest scale that reaches it,
so that the final, filtered resize has two source pixels per target pixel."""
_MOST_REDUCED_PIXELS: Final = 24_000_000
"""Pixels above which a JPEG is decoded at a smaller scale than that, to bound memory. Only pictures
that are many times as long as wide have as many."""


@dataclass(frozen=True, slots=True)
class Target:
    """The picture that images are decoded to: a model's input."""

    width: int
    height: int
    fit: Fit = "squash"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height


TILE: Final = Target(IMAGE_SIZE, IMAGE_SIZE)
"""CIFAR-10's input."""


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
    """Number of passes over the whole picture: the scans of a JPEG, or the pictures in an AVIF or
    HEIC."""
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

    def stored_size(self, target: Target) -> tuple[int, int]:
        """Return (width, height) of the target before the EXIF orientation is undone."""
        return target.size[::-1] if 5 <= self.orientation <= 8 else target.size

    def scale(self, target: Target) -> int:
        """Return the divisor of the scale at which the image is decoded for ``target``: 1, or 2, 4
        or 8 for a JPEG."""
        if self.kind != "JPEG":
            return 1
        width, height = self.stored_size(target)
        for scale in _SCALES:
            least = scale * _REDUCTION
            if self.width >= least * width and self.height >= least * height:
                return scale
            if self.pixels * 4 > _MOST_REDUCED_PIXELS * scale * scale:
                return scale
        return 1

    def seconds(self, target: Target) -> float:
        """Return the estimated CPU time to decode the image for ``target``."""
        resizing = target.width * target.height * _SECONDS_PER_TARGET_PIXEL
        if self.kind in ("AVIF", "HEIC"):
            pixels = self.pixels * self.scans
            resizing += len(self.data) * _AVIF_SECONDS_PER_BYTE
            return resizing + pixels * _AVIF_SECONDS_PER_PIXEL
        if self.kind != "JPEG":
            return resizing + self.pixels * _OTHER_SECONDS_PER_PIXEL
        passes = self.scans if self.streamed else self.scans + _WHOLE_PASSES
        once = len(self.data) * _JPEG_SECONDS_PER_BYTE
        once += self.pixels * passes * _JPEG_SECONDS_PER_PIXEL
        once += self.pixels / self.scale(target) ** 2 * _JPEG_SECONDS_PER_REDUCED_PIXEL
        return resizing + (once if self.ends else once * _CUT_SHORT_FACTOR)
