"""Read the chunks of a PNG file: its size, and its pixel data without the metadata around it.

Text, profiles, gamma and the later frames of an animation do not affect the tile, but a decoder
would still unpack and check them: 14 kB of compressed text took 36 ms, and a wrong checksum in a
comment made the picture undecodable. So they are removed before decoding.

Source: https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from typing import Final

from cifar10.formats.orientation import orientation_of
from cifar10.image_layout import ImageLayout

MAX_CHUNKS: Final = 32_768
"""Maximum number of chunks read. A chunk takes a fraction of a microsecond and can have twelve
bytes. An encoder that writes 512 bytes at a time makes 20,000 in 10 MB."""

_FIRST_CHUNK: Final = 8
_HEADER: Final = struct.Struct(">I4s")
_FOR_PIXELS: Final = frozenset((b"IHDR", b"PLTE", b"tRNS"))
_NO_CHECKSUM: Final = b"\0\0\0\0"
_END: Final = b"\0\0\0\0IEND\xae\x42\x60\x82"
_MOST_IDAT_AS_IS: Final = 16
"""Number of IDAT chunks above which they are joined: Pillow spends microseconds on each."""

_MAX_METADATA_BYTES: Final = 64 * 1024
_EXIF_TEXT: Final = b"Raw profile type exif\0"
"""Start of a text chunk in which ImageMagick stores EXIF, as hexadecimal digits after three
lines."""
_XMP_TEXT: Final = b"XML:com.adobe.xmp\0"


def png_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like a PNG. Never raises; takes linear time.

    Returns:
        The layout, or None if the size cannot be read or there are more than :data:`MAX_CHUNKS`
        chunks.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    before: list[bytes] = []
    pixels: list[tuple[int, int]] = []
    exif = xmp = None
    is_plain, is_in_run, ends = True, True, False
    position, size = _FIRST_CHUNK, len(data)
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            break
        length, kind = _HEADER.unpack_from(data, position)
        end = position + 12 + length
        if kind == b"IDAT":
            if is_in_run:
                pixels.append((position, end))
            else:
                is_plain = False
        elif kind == b"IEND":
            ends = True
            break
        else:
            is_in_run = not pixels
            if kind in _FOR_PIXELS and is_in_run:
                before.append(data[position:end])
            else:
                is_plain = False
                if kind == b"eXIf" and exif is None:
                    exif = _checked(data, position, length)
                elif kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(
                    (_EXIF_TEXT, _XMP_TEXT), position + 8
                ):
                    text = _checked(data, position, length)
                    if data.startswith(_XMP_TEXT, position + 8):
                        xmp = xmp or _itxt(text)
                    else:
                        exif = exif or _raw_profile(text, is_compressed=kind == b"zTXt")
        position = end
    else:
        return None
    is_plain &= len(pixels) <= _MOST_IDAT_AS_IS
    pieces = () if is_plain else _pieces(data, before, pixels)
    return ImageLayout("PNG", width, height, data, pieces, orientation_of(exif, xmp), ends=ends)


def _pieces(
    data: bytes, before: list[bytes], pixels: list[tuple[int, int]]
) -> tuple[bytes | memoryview, ...]:
    """Return the file reduced to its pixels, in one IDAT chunk. The chunk's checksum is not
    computed, because the compressed pixels contain one (RFC 1950)."""
    view = memoryview(data)
    parts = [view[begin + 8 : end - 4] for begin, end in pixels]
    idat = _HEADER.pack(sum(map(len, parts)), b"IDAT")
    is_cut = bool(pixels) and pixels[-1][1] > len(data)
    return (data[:_FIRST_CHUNK], *before, idat, *parts, b"" if is_cut else _NO_CHECKSUM + _END)


def _checked(data: bytes, position: int, length: int) -> bytes | None:
    """Return the content of a metadata chunk, or None if it is long, truncated or has a wrong
    checksum."""
    end = position + 8 + length
    if length > _MAX_METADATA_BYTES or end + 4 > len(data):
        return None
    (checksum,) = struct.unpack_from(">I", data, end)
    found = zlib.crc32(memoryview(data)[position + 4 : end])
    return data[position + 8 : end] if found == checksum else None


def _itxt(text: bytes | None) -> bytes | None:
    """Return the text of an uncompressed iTXt chunk (compression flag 0), or None."""
    if text is None or text[len(_XMP_TEXT) : len(_XMP_TEXT) + 1] != b"\0":
        return None
    return text[len(_XMP_TEXT) :]


def _raw_profile(text: bytes | None, *, is_compressed: bool) -> bytes | None:
    """Return the EXIF block in one of ImageMagick's text chunks; None if it is damaged or long."""
    if text is None:
        return None
    digits = text[len(_EXIF_TEXT) :]
    try:
        if is_compressed:
            digits = zlib.decompressobj().decompress(digits[1:], _MAX_METADATA_BYTES)
        return bytes.fromhex(b"".join(digits.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, zlib.error):
        return None
