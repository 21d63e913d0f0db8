"""Decode and resize images: the one code path that training data, server and benchmark share.

The bytes are not trusted. The type comes from the magic bytes, never from a name or a header. The
cost of decoding is computed from the file's structure before anything is decoded
(:mod:`cifar10.image_layout`). Decoders receive the pixel data without the metadata around it. Any
exception of a decoder becomes an :class:`~cifar10.errors.ImageError`.

Pillow decodes, and decides what is decodable. Plain 32×32 JPEGs, the content of most requests, are
first tried with libjpeg-turbo directly (simplejpeg), which gives the same pixels in a sixth of the
time. Pillow decodes any image that is not plain or has a fault.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
)
from cifar10.formats.avif import avif_layout
from cifar10.formats.bmp import bmp_layout
from cifar10.formats.gif import gif_layout
from cifar10.formats.heic import heic_layout, open_heic
from cifar10.formats.jpeg_markers import MAX_SEGMENTS, has_all_scans, jpeg_layout, read_markers
from cifar10.formats.png_chunks import png_layout
from cifar10.formats.recognise import image_format
from cifar10.formats.webp_chunks import webp_layout
from cifar10.image_layout import TILE, ImageLayout, Kind, Target
from cifar10.labels import IMAGE_SIZE
from cifar10.pixels import to_pixels

_OPENERS: Final[dict[Kind, Callable[[Any], ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,  # MPO files too: as JPEG, their first picture decodes at reduced scale
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "AVIF": AvifImageFile,
    "HEIC": open_heic,
}
"""Pillow's class for each type. Not ``Image.open``, whose errors give a heap address and no
reason."""

_READERS: Final[dict[Kind, Callable[[bytes], ImageLayout | None]]] = {
    "PNG": png_layout,
    "WEBP": webp_layout,
    "GIF": gif_layout,
    "BMP": bmp_layout,
    "AVIF": avif_layout,
    "HEIC": heic_layout,
}
"""Reader of the layout of each type but JPEG."""

_TILE_PIXELS: Final = IMAGE_SIZE * IMAGE_SIZE
_APP0, _DHT, _DQT, _DRI, _SOF0, _SOS = 0xE0, 0xC4, 0xDB, 0xDD, 0xC0, 0xDA
_PLAIN_MARKERS: Final = frozenset((_APP0, _DHT, _DQT, _DRI, _SOF0))
"""Markers allowed before the scan of a plain JPEG (ITU T.81, table B.1): one baseline frame, and no
EXIF, XMP, ICC or Adobe segment, which could affect the pixels."""
_PLAIN_FRAME: Final = b"\x08" + IMAGE_SIZE.to_bytes(2, "big") * 2
"""Start of that frame's segment: 8 bits per sample, height, width."""
_MOST_PLAIN_SEGMENTS: Final = 16

_HEIF_PICTURES: Final = 3
"""Limit of the pixels that an AVIF or HEIC decodes to, in multiples of those of one picture: the
picture, its transparency and a thumbnail."""

_SPARSE_PIXELS: Final = 1_000_000
"""Number of pixels up to which bytes per pixel are not checked: decoding takes 45 ms at most."""

_PADS: Final = (b"", b"\x00", b"\xaa", b"\x55")
"""Candidates for the last data byte of a JPEG that lost its end marker and one more byte. Each ends
a block under some of the usual Huffman tables."""

_WORDS_FOR_CUT_SHORT: Final = ("file is truncated", "Truncated File Read")
"""Phrases in Pillow's errors for truncated files."""
CUT_SHORT: Final = "it is truncated. Send the whole file."


@dataclass(frozen=True)
class DecodeLimits:
    """Limits above which an image is refused without decoding. Sizes come from the image's header.

    A sequential JPEG in one scan is decoded at reduced scale and row by row, so many pixels need
    little memory. Any other picture must be held whole in memory, so its limit is lower.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_pixels_whole: int = 24_000_000
    max_scans: int = 100
    """Maximum number of scans of a JPEG. Encoders write about ten. Every scan visits every block,
    even if it is empty."""
    max_full_passes: int = 16
    """Limit of a JPEG's pixels times scans, in multiples of ``max_pixels_whole``."""
    max_pixels_per_byte: int = 1_000
    """Maximum pixels per byte of images above a million pixels. A single-colour picture has 340 as
    PNG and 170 as JPEG."""


DEFAULT_LIMITS: Final = DecodeLimits()

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as all decoders here; by default one for each core


def decode_image(
    data: bytes, limits: DecodeLimits = DEFAULT_LIMITS, target: Target = TILE
) -> NDArray[np.uint8]:
    """Decode one image to a model's input.

    The image is resized with an antialiased bicubic filter: all of it or, for a target with
    ``fit="crop"``, the largest centred part of the target's shape. An image of the target's size
    keeps its pixels exactly. EXIF orientation is applied, transparency is composited over white,
    16-bit greyscale is scaled to 8 bits, and of an animation the first frame is used.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, AVIF, GIF, BMP or, with pillow-heif, HEIC.
        limits: maximum bytes, pixels and scans.
        target: the model's input; CIFAR-10's by default.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        UnsupportedImageError: not one of those types.
        ImageTooLargeError: more bytes, pixels or scans than ``limits`` allows.
        UndecodableImageError: truncated, damaged, or otherwise not decodable.
        MemoryError: memory is insufficient to decode it.
    """
    if target.size == TILE.size:
        tile = decode_plain_tile(data, limits)
        if tile is not None:
            return tile
    return decode_layout(inspect_image(data, limits, target), target)


def decode_tile(data: bytes) -> NDArray[np.uint8]:
    """Decode an image that must already be 32×32: as :func:`decode_image`, but never resized.

    Returns:
        uint8 (32, 32, 3), RGB, 0–255.

    Raises:
        ImageError: as :func:`decode_image`, or the image is not 32×32.
    """
    tile = decode_plain_tile(data)
    if tile is not None:
        return tile
    layout = inspect_image(data)
    if (layout.width, layout.height) != TILE.size:
        message = f"the image is {layout.width} × {layout.height}, expected 32 × 32"
        raise UndecodableImageError(message)
    return decode_layout(layout)


def decode_plain_tile(
    data: bytes, limits: DecodeLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8] | None:
    """Decode a 32×32 JPEG without metadata, with the same result as :func:`decode_image`.

    Returns:
        uint8 (32, 32, 3), RGB; None for any other image, including faulty and refused ones.
    """
    if len(data) > limits.max_bytes or limits.max_pixels < _TILE_PIXELS:
        return None
    if not data.startswith(_last_head.head) and not _last_head.take(data):
        return None
    try:
        tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None  # damaged; Pillow decides whether it is decodable
    return tile


def inspect_image(
    data: bytes, limits: DecodeLimits = DEFAULT_LIMITS, target: Target = TILE
) -> ImageLayout:
    """Return the layout of an image, with the cost of decoding it, without decoding it.

    Args:
        data: the file's bytes.
        limits: maximum bytes, pixels and scans.
        target: the model's input, for the messages.

    Raises:
        UnsupportedImageError: not one of those types.
        ImageTooLargeError: more bytes, pixels or scans than ``limits`` allows.
        UndecodableImageError: it contains no picture.
    """
    if len(data) > limits.max_bytes:
        message = f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted"
        raise ImageTooLargeError(message)
    kind = image_format(data)
    if kind == "JPEG":
        layout = _inspect_jpeg(data)
    else:
        found = _READERS[kind](data)
        if found is None:
            _refuse(kind, "its header is damaged, cut short, or of a form that is not supported")
        layout = found
    _check_cost(layout, len(data), limits, target)
    return layout


def decode_layout(layout: ImageLayout, target: Target = TILE) -> NDArray[np.uint8]:
    """Decode an image that :func:`inspect_image` has accepted.

    Args:
        layout: the image's layout.
        target: the model's input.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        UndecodableImageError: truncated, damaged, or otherwise not decodable.
        MemoryError: memory is insufficient to decode it.
    """
    content = layout.content
    try:
        return _decode(layout, content, target)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a decoder fed hostile bytes may raise anything
        reason = str(error) or type(error).__name__
        is_cut = any(words in reason for words in _WORDS_FOR_CUT_SHORT)
        is_cut |= layout.kind == "WEBP" and not layout.ends
        if not is_cut or layout.kind != "JPEG":
            _refuse(layout.kind, CUT_SHORT if is_cut else reason, error)
    whole = _with_end(content, layout)
    try:
        return _decode(layout, whole, target)
    except OSError as error:
        _refuse(layout.kind, str(error), error)


def _decode(layout: ImageLayout, content: bytes, target: Target) -> NDArray[np.uint8]:
    with _OPENERS[layout.kind](io.BytesIO(content)) as image:
        if image.size != (layout.width, layout.height):
            _refuse(layout.kind, "its header contradicts itself")
        return to_pixels(image, layout, target)


def _refuse(kind: Kind, reason: str, cause: BaseException | None = None) -> NoReturn:
    message = f"the {kind} image cannot be decoded: {reason}"
    raise UndecodableImageError(message) from cause


def _inspect_jpeg(data: bytes) -> ImageLayout:
    structure = read_markers(data)
    if structure.segments > MAX_SEGMENTS:
        message = (
            f"the JPEG image has more than {MAX_SEGMENTS:,} marker segments, which no encoder "
            "writes. Save it again as a plain JPEG."
        )
        raise ImageTooLargeError(message)
    if not structure.scans:
        _refuse("JPEG", CUT_SHORT if structure.frame else "it contains no picture")
    if not structure.frame:
        _refuse("JPEG", "its header has no frame (SOF)")
    if not structure.is_known_frame:
        number = structure.frame - _SOF0
        _refuse("JPEG", f"its type, SOF{number}, is not supported. Save it as a baseline JPEG.")
    return jpeg_layout(data, structure)


class _PlainHead:
    """The head of the last plain tile. An encoder writes the same head for each image of one size
    and quality, so comparing it mostly saves looking at it."""

    def __init__(self) -> None:
        self.head = b"\0"
        """The bytes before the scan; at first no JPEG's."""

    def take(self, data: bytes) -> bool:
        """Return whether ``data`` is a plain tile, and keep its head if it is."""
        length = _plain_head_length(data)
        if length:
            self.head = data[:length]
        return length > 0


_last_head: Final = _PlainHead()


def _plain_head_length(data: bytes) -> int:
    """Return the number of bytes up to the scan's marker of a JPEG that is 32×32, in grey or YCbCr,
    and without metadata, so that libjpeg-turbo alone decodes it exactly as Pillow does; 0 for any
    other image."""
    if data[:3] != b"\xff\xd8\xff":
        return 0
    position = 2
    framed = False
    for _ in range(_MOST_PLAIN_SEGMENTS):
        segment = data[position : position + 4]
        if len(segment) < 4 or segment[0] != 0xFF:
            return 0
        marker = segment[1]
        if marker == _SOS:
            return position + 4 if framed else 0
        if marker not in _PLAIN_MARKERS:
            return 0
        start = position + 4
        position += 2 + (segment[2] << 8 | segment[3])
        if marker == _SOF0:
            frame = data[start:position]
            if framed or frame[:5] != _PLAIN_FRAME or not _is_grey_or_ycbcr(frame):
                return 0
            framed = True
        elif marker == _APP0 and (position - start < 14 or data[start : start + 5] != b"JFIF\0"):
            return 0
    return 0


def _is_grey_or_ycbcr(frame: bytes) -> bool:
    """Return whether a frame segment has the component ids of grey or YCbCr; JFIF numbers them
    1, 2, 3."""
    return (len(frame) == 9 and frame[5] == 1) or (
        len(frame) == 15 and frame[5] == 3 and frame[6::3] == b"\1\2\3"
    )


def _check_cost(layout: ImageLayout, size_bytes: int, limits: DecodeLimits, target: Target) -> None:
    whole = min(limits.max_pixels, limits.max_pixels_whole)
    most = limits.max_pixels if layout.streamed else whole
    if layout.pixels > most:
        message = (
            f"the {layout.kind} image is {layout.width} × {layout.height} = {layout.pixels:,} "
            f"pixels; at most {most:,} are accepted. Send a smaller copy: the model sees "
            f"{target.width} × {target.height}."
        )
        raise ImageTooLargeError(message)
    if layout.kind in ("AVIF", "HEIC"):
        if layout.pixels * layout.scans > _HEIF_PICTURES * most:
            message = (
                f"the pictures in the {layout.kind} file have {layout.pixels * layout.scans:,} "
                f"pixels in all; at most {_HEIF_PICTURES * most:,} are accepted. Send one smaller "
                "picture."
            )
            raise ImageTooLargeError(message)
        return  # a picture of one colour takes a few hundred bytes, whatever its size
    passes = 1 if layout.streamed else layout.scans
    in_all = limits.max_full_passes * limits.max_pixels_whole
    if layout.scans > limits.max_scans or (passes > 1 and layout.pixels * passes > in_all):
        message = (
            f"the JPEG image has {layout.scans:,} scans of {layout.pixels:,} pixels; at most "
            f"{limits.max_scans} scans with {in_all:,} pixels in total are accepted. Save it as a "
            "baseline JPEG."
        )
        raise ImageTooLargeError(message)
    if layout.pixels > max(_SPARSE_PIXELS, limits.max_pixels_per_byte * size_bytes):
        message = (
            f"the {layout.kind} image has {layout.pixels:,} pixels in {size_bytes:,} bytes; "
            f"at most {limits.max_pixels_per_byte:,} per byte are accepted. Send a smaller copy."
        )
        raise ImageTooLargeError(message)


def _with_end(content: bytes, layout: ImageLayout) -> bytes:
    """Return a JPEG with its missing end marker added. A picture in one scan may also lack part of
    its last block.

    Raises:
        UndecodableImageError: more of the picture is missing.
    """
    if not has_all_scans(content, read_markers(content)):
        _refuse("JPEG", CUT_SHORT)
    content = content[:-1] if content[-1:] == b"\xff" else content
    # Not in a progressive JPEG, where one byte may encode thousands of blocks.
    for pad in _PADS if layout.streamed else _PADS[:1]:
        whole = b"".join((content, pad, b"\xff\xd9"))
        if _is_faultless(whole):
            return whole
    _refuse("JPEG", CUT_SHORT)


def _is_faultless(data: bytes) -> bool:
    """Return whether libjpeg decodes the JPEG without a warning. Decodes at reduced scale, which
    still reads all data."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return False
    return True
