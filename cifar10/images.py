"""Bytes to pixels: the one decode-and-resize path that training data, server and benchmark share.

The bytes are not trusted. The type is read from the magic bytes, never from a name or a header; the
file's own structure says what decoding it would cost before anything is decoded
(:mod:`cifar10.image_layout`); decoders are given the pixels without the metadata around them;
whatever a decoder throws becomes an :class:`~cifar10.errors.ImageError`.

Pillow decodes, and is the judge of what is decodable. Plain 32×32 JPEGs, which is what most
requests hold, are first tried with libjpeg-turbo directly (simplejpeg): the same pixels for a sixth
of the time. Whatever is not plain, or not faultless, is Pillow's.
"""

import io
from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from cifar10.image_layout import ImageLayout, Kind
from cifar10.jpeg_markers import MAX_SEGMENTS, has_all_scans, jpeg_layout, read_markers
from cifar10.labels import IMAGE_SIZE
from cifar10.pixels import to_pixels
from cifar10.png_chunks import png_layout
from cifar10.webp_chunks import webp_layout

_OPENERS: Final[dict[Kind, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,  # never MPO, which is not decoded at reduced scale: the first picture is
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
}
"""Not ``Image.open``, whose refusals name a heap address instead of the reason."""

_TARGET: Final = (IMAGE_SIZE, IMAGE_SIZE)
_TARGET_PIXELS: Final = IMAGE_SIZE * IMAGE_SIZE
_APP0, _DHT, _DQT, _DRI, _SOF0, _SOS = 0xE0, 0xC4, 0xDB, 0xDD, 0xC0, 0xDA
_PLAIN_MARKERS: Final = frozenset((_APP0, _DHT, _DQT, _DRI, _SOF0))
"""What a plain JPEG has before its scan (ITU T.81, table B.1): no EXIF, XMP, ICC or Adobe segment,
which may say something about the pixels, and one baseline frame."""
_PLAIN_FRAME: Final = b"\x08" + IMAGE_SIZE.to_bytes(2, "big") * 2
"""How that frame's segment begins: 8 bits a sample, height, width."""
_MOST_PLAIN_SEGMENTS: Final = 16

_SPARSE_PIXELS: Final = 1_000_000
"""Up to here an image may have as few bytes as it likes: decoding it takes 45 ms at most."""

_PADS: Final = (b"", b"\x00", b"\xaa", b"\x55")
"""What may stand for the last byte of a JPEG that lost its end marker and a byte more. Each ends a
block under some of the usual Huffman tables."""

_WORDS_FOR_CUT_SHORT: Final = ("file is truncated", "Truncated File Read")
"""Pillow's own."""
CUT_SHORT: Final = "its data ends before the picture does. Send the whole file."


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused unread. Pixels are counted from the image's header.

    A sequential JPEG in one scan is decoded at reduced scale and row by row, so many pixels cost
    little memory. PNG, WebP, progressive JPEG and JPEG in several scans must be held whole, hence
    their lower bound.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_pixels_whole: int = 24_000_000
    max_scans: int = 100
    """Of a JPEG. Encoders make about ten; each visits every block, even where it says nothing."""
    max_full_passes: int = 16
    """Passes over ``max_pixels_whole``: a JPEG has at most so many pixels times scans."""
    max_pixels_per_byte: int = 1_000
    """Above a million pixels. A picture of one colour has 340 as PNG and 170 as JPEG."""


DEFAULT_LIMITS: Final = DecodeLimits()


def image_format(data: bytes) -> Kind:
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
        limits: the most bytes, pixels and scans accepted.

    Returns:
        uint8 (32, 32, 3), RGB, 0–255, C-contiguous.

    Raises:
        UnsupportedImageError: not one of the three types.
        ImageTooLargeError: more bytes, pixels or scans than ``limits`` allows.
        UndecodableImageError: truncated, damaged, or otherwise not decodable.
        MemoryError: there is none left to decode it.
    """
    tile = decode_plain_tile(data, limits)
    return decode_layout(inspect_image(data, limits)) if tile is None else tile


def decode_tile(data: bytes) -> NDArray[np.uint8]:
    """Decode an image that must be a CIFAR-10 tile already: as :func:`decode_image`, never resized.

    Returns:
        uint8 (32, 32, 3), RGB, 0–255.

    Raises:
        ImageError: as :func:`decode_image`, or the image is not 32×32.
    """
    tile = decode_plain_tile(data)
    if tile is not None:
        return tile
    layout = inspect_image(data)
    if (layout.width, layout.height) != _TARGET:
        message = f"the image is {layout.width} × {layout.height}, expected 32 × 32"
        raise UndecodableImageError(message)
    return decode_layout(layout)


def decode_plain_tile(
    data: bytes, limits: DecodeLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8] | None:
    """Decode a 32×32 JPEG with nothing but its pixels, to what :func:`decode_image` would give.

    Returns:
        uint8 (32, 32, 3), RGB; None for any other image, faulty and forbidden ones included.
    """
    if (
        data[:3] != b"\xff\xd8\xff"
        or len(data) > limits.max_bytes
        or limits.max_pixels < _TARGET_PIXELS
        or not _is_plain_tile(data)
    ):
        return None
    try:
        tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None  # damaged, perhaps only a little: Pillow says whether it can be shown
    return tile


def inspect_image(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> ImageLayout:
    """Find out what decoding ``data`` would take, without decoding it.

    Raises:
        UnsupportedImageError: not one of the three types.
        ImageTooLargeError: more bytes, pixels or scans than ``limits`` allows.
        UndecodableImageError: no picture begins in it.
    """
    if len(data) > limits.max_bytes:
        message = f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted"
        raise ImageTooLargeError(message)
    kind = image_format(data)
    if kind == "JPEG":
        layout = _inspect_jpeg(data)
    else:
        found = png_layout(data) if kind == "PNG" else webp_layout(data)
        if found is None:
            _refuse(kind, "its header is damaged or cut short")
        layout = found
    _check_cost(layout, len(data), limits)
    return layout


def decode_layout(layout: ImageLayout, size: tuple[int, int] = _TARGET) -> NDArray[np.uint8]:
    """Decode an image that :func:`inspect_image` has let through.

    Args:
        layout: of the image.
        size: (width, height) of the result.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        UndecodableImageError: truncated, damaged, or otherwise not decodable.
        MemoryError: there is none left to decode it.
    """
    content = layout.content
    try:
        return _decode(layout, content, size)
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
        return _decode(layout, whole, size)
    except OSError as error:
        _refuse(layout.kind, str(error), error)


def _decode(layout: ImageLayout, content: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    with _OPENERS[layout.kind](io.BytesIO(content)) as image:
        if image.size != (layout.width, layout.height):
            _refuse(layout.kind, "its header contradicts itself")
        return to_pixels(image, layout.orientation, size)


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
        _refuse("JPEG", CUT_SHORT if structure.frame else "no picture begins in it")
    if not structure.frame:
        _refuse("JPEG", "its header has no frame (SOF)")
    if not structure.is_known_frame:
        number = structure.frame - _SOF0
        _refuse("JPEG", f"its type, SOF{number}, is not accepted. Save it as a baseline JPEG.")
    return jpeg_layout(data, structure)


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


def _check_cost(layout: ImageLayout, size_bytes: int, limits: DecodeLimits) -> None:
    whole = min(limits.max_pixels, limits.max_pixels_whole)
    most = limits.max_pixels if layout.streamed else whole
    if layout.pixels > most:
        message = (
            f"the {layout.kind} image is {layout.width} × {layout.height} = {layout.pixels:,} "
            f"pixels; at most {most:,} are accepted. Send a smaller copy: the model sees 32 × 32."
        )
        raise ImageTooLargeError(message)
    passes = 1 if layout.streamed else layout.scans
    in_all = limits.max_full_passes * limits.max_pixels_whole
    if layout.scans > limits.max_scans or (passes > 1 and layout.pixels * passes > in_all):
        message = (
            f"the JPEG image has {layout.scans:,} scans of {layout.pixels:,} pixels; accepted are "
            f"at most {limits.max_scans} scans, and {in_all:,} pixels in all of them. Save it as a "
            "baseline JPEG."
        )
        raise ImageTooLargeError(message)
    if layout.pixels > max(_SPARSE_PIXELS, limits.max_pixels_per_byte * size_bytes):
        message = (
            f"the {layout.kind} image has {layout.pixels:,} pixels in {size_bytes:,} bytes; "
            f"accepted are {limits.max_pixels_per_byte:,} for each byte. Send a smaller copy."
        )
        raise ImageTooLargeError(message)


def _with_end(content: bytes, layout: ImageLayout) -> bytes:
    """A JPEG without its end marker, completed: its file may lack the marker and, of a picture in
    one scan, a part of the last block.

    Raises:
        UndecodableImageError: more of the picture is missing.
    """
    if not has_all_scans(content, read_markers(content)):
        _refuse("JPEG", CUT_SHORT)
    content = content[:-1] if content[-1:] == b"\xff" else content
    # In a progressive JPEG a byte may stand for thousands of blocks.
    for pad in _PADS if layout.streamed else _PADS[:1]:
        whole = b"".join((content, pad, b"\xff\xd9"))
        if _is_faultless(whole):
            return whole
    _refuse("JPEG", CUT_SHORT)


def _is_faultless(data: bytes) -> bool:
    """Whether libjpeg decodes the JPEG without a warning. At reduced scale, which changes nothing
    about what is read."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return False
    return True
