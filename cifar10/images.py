"""Bytes to pixels: the one decode-and-resize path that training data, server and benchmark share.

The bytes are not trusted. The type is read from the magic bytes, never from a name or a header;
sizes are checked in the image's own header before anything is decoded; whatever a decoder throws
becomes an :class:`~cifar10.errors.ImageError`.

Pillow decodes, and is the judge of what is decodable. Plain 32×32 JPEGs, which is what most
requests hold, are first tried with libjpeg-turbo directly (simplejpeg): the same pixels for a sixth
of the time. Whatever is not plain, or not faultless, is Pillow's.
"""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import ExifTags, Image, WebPImagePlugin  # noqa: F401 — importing it is what registers it

from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from cifar10.labels import IMAGE_SIZE

# The three types, before a request asks for one: for a type that is not loaded, as WebP is not,
# Pillow loads all it knows, in the middle of that request.
Image.preinit()

_ORIENTATION: Final = ExifTags.Base.Orientation.value
_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what undoes it (EXIF 2.32, tag 0x0112)."""

_TARGET: Final = (IMAGE_SIZE, IMAGE_SIZE)
_TARGET_PIXELS: Final = IMAGE_SIZE * IMAGE_SIZE
_REDUCED: Final = (2 * IMAGE_SIZE, 2 * IMAGE_SIZE)
"""JPEGs are decoded at the smallest of 1, 1/2, 1/4, 1/8 scale that is at least this large, so that
the final, filtered resize still has two source pixels for each one it makes."""

_APP0, _DHT, _DQT, _DRI, _SOF0, _SOS = 0xE0, 0xC4, 0xDB, 0xDD, 0xC0, 0xDA
_PLAIN_MARKERS: Final = frozenset((_APP0, _DHT, _DQT, _DRI, _SOF0))
"""What a plain JPEG has before its scan (ITU T.81, table B.1): no EXIF, XMP, ICC or Adobe segment,
which may say something about the pixels, and one baseline frame."""
_PLAIN_FRAME: Final = b"\x08" + IMAGE_SIZE.to_bytes(2, "big") * 2
"""How that frame's segment begins: 8 bits a sample, height, width."""
_MOST_PLAIN_SEGMENTS: Final = 16


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused unread. Pixels are counted from the image's header.

    A baseline JPEG is decoded at reduced scale and row by row, so many pixels cost little memory.
    PNG, WebP and progressive JPEG must be held whole, hence their lower bound.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_pixels_whole: int = 24_000_000


DEFAULT_LIMITS: Final = DecodeLimits()


def image_format(data: bytes) -> str:
    """Return ``"JPEG"``, ``"PNG"`` or ``"WEBP"`` by the magic bytes.

    Raises:
        UnsupportedImageError: any other content, an empty one included.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    found = bytes(data[:8]).hex(" ") if data else "nothing"
    message = (
        f"expected a JPEG, PNG or WebP image, but the content starts with: {found}. "
        "Convert the image to one of those types and send its bytes."
    )
    raise UnsupportedImageError(message)


def decode_image(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode one image to the tile that every model here sees.

    The whole image is squeezed to 32×32 (its aspect ratio is not kept, so nothing that the sender
    framed is cut away) with an antialiased bicubic filter; an image that is 32×32 already keeps
    its pixels exactly. EXIF orientation is applied, transparency is laid over white, 16-bit
    greyscale is scaled to 8, the first frame of an animation is taken.

    Args:
        data: the file's bytes: JPEG, PNG or WebP.
        limits: the most bytes and pixels accepted.

    Returns:
        uint8 (32, 32, 3), RGB, 0–255, C-contiguous.

    Raises:
        UnsupportedImageError: not one of the three types.
        ImageTooLargeError: more bytes or pixels than ``limits`` allows.
        UndecodableImageError: truncated, damaged, or otherwise not decodable.
    """
    return _decode(data, limits, exact=False)


def decode_tile(data: bytes) -> NDArray[np.uint8]:
    """Decode an image that must be a CIFAR-10 tile already: as :func:`decode_image`, never resized.

    Returns:
        uint8 (32, 32, 3), RGB, 0–255.

    Raises:
        ImageError: as :func:`decode_image`, or the image is not 32×32.
    """
    return _decode(data, DEFAULT_LIMITS, exact=True)


def _decode(data: bytes, limits: DecodeLimits, *, exact: bool) -> NDArray[np.uint8]:
    if len(data) > limits.max_bytes:
        message = f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted"
        raise ImageTooLargeError(message)
    kind = image_format(data)
    if kind == "JPEG" and limits.max_pixels >= _TARGET_PIXELS and _is_plain_tile(data):
        try:
            tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
            return tile
        except ValueError:
            pass  # damaged, perhaps only a little: Pillow says whether it can be shown
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _check_pixels(image, kind, limits)
            if exact and image.size != _TARGET:
                message = f"the image is {image.width} × {image.height}, expected 32 × 32"
                raise UndecodableImageError(message)
            return _to_tile(image)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own bound, far above ours
        message = f"the {kind} image claims too many pixels: {error}"
        raise ImageTooLargeError(message) from error
    except Exception as error:  # a decoder fed hostile bytes may raise anything
        message = f"the {kind} image cannot be decoded: {error or type(error).__name__}"
        raise UndecodableImageError(message) from error


def count_pixels(data: bytes) -> int:
    """How many pixels an image says that it has, from its header; 0 where that cannot be told."""
    try:
        with Image.open(io.BytesIO(data), formats=(image_format(data),)) as image:
            return image.width * image.height
    except Exception:  # whatever is wrong with it is for the decoder to say
        return 0


def _is_plain_tile(data: bytes) -> bool:
    """Whether ``data``, a JPEG, is a 32×32 one in grey or YCbCr with nothing but its pixels, so
    that libjpeg-turbo on its own must give what Pillow makes of it."""
    position = 2
    framed = False
    for _ in range(_MOST_PLAIN_SEGMENTS):
        segment = data[position : position + 4]
        if len(segment) < 4 or segment[0] != 0xFF:
            return False
        marker = segment[1]
        if marker == _SOS:
            return framed
        if marker not in _PLAIN_MARKERS:
            return False
        start = position + 4
        position += 2 + (segment[2] << 8 | segment[3])
        if marker == _SOF0:
            frame = data[start:position]
            if framed or frame[:5] != _PLAIN_FRAME or not _is_grey_or_ycbcr(frame):
                return False
            framed = True
        elif marker == _APP0 and (position - start < 14 or data[start : start + 5] != b"JFIF\0"):
            return False
    return False


def _is_grey_or_ycbcr(frame: bytes) -> bool:
    """By the ids of a frame segment's components: JFIF numbers them 1, 2, 3."""
    return (len(frame) == 9 and frame[5] == 1) or (
        len(frame) == 15 and frame[5] == 3 and frame[6::3] == b"\1\2\3"
    )


def _check_pixels(image: Image.Image, kind: str, limits: DecodeLimits) -> None:
    width, height = image.size
    streamed = kind == "JPEG" and not image.info.get("progressive")
    most = limits.max_pixels if streamed else min(limits.max_pixels, limits.max_pixels_whole)
    if width * height > most:
        message = (
            f"the {kind} image is {width} × {height} = {width * height:,} pixels; "
            f"at most {most:,} are accepted. Send a smaller copy: the model sees 32 × 32."
        )
        raise ImageTooLargeError(message)


def _to_tile(image: Image.Image) -> NDArray[np.uint8]:
    if image.format == "JPEG":
        image.draft(None, _REDUCED)
    image.load()
    transpose = _TRANSPOSES.get(_orientation(image))
    tile = _eight_bit(image)
    if tile.size != _TARGET:
        tile = tile.resize(_TARGET, Image.Resampling.BICUBIC)
    if tile.mode == "RGBA":
        white = Image.new("RGBA", tile.size, (255, 255, 255, 255))
        tile = Image.alpha_composite(white, tile).convert("RGB")
    if transpose is not None:
        tile = tile.transpose(transpose)
    return np.array(tile, dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or where the EXIF block is damaged: a picture whose
    pixels are sound is not refused for its metadata."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow's EXIF parser raises many kinds of error on damaged blocks
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB, or RGBA where it has transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow opens 16-bit greyscale as I;16 or I, and would clip rather than scale it.
        values = np.asarray(image, dtype=np.float32)
        grey = np.clip(np.rint(values / 257.0), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB")
