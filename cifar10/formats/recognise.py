"""Recognise the type of an image by its first bytes, and name types that are not accepted."""

import re
from typing import Final

from cifar10.errors import UnsupportedImageError
from cifar10.formats.heic import decodes_heic
from cifar10.image_layout import Kind

ACCEPTED: Final = "JPEG, PNG, WebP, AVIF, GIF or BMP"
_HEAD_BYTES: Final = 1_024
"""Bytes in which the type of a text is searched."""

_AVIF_BRANDS: Final = (b"avif", b"avis")
_HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_TEXTS: Final = (
    (re.compile(rb"data:[^,]{0,200},"), "a data: URL; send the bytes that it encodes"),
    (re.compile(rb"https?://"), "a URL, which this server does not fetch; send the image's bytes"),
    (re.compile(rb"(?:<\?xml.*)?<svg", re.S), "SVG, a drawing; send it rendered as PNG"),
    (re.compile(rb"<(?:!doctype )?html", re.I), "an HTML page"),
    (
        re.compile(rb"\"?(?:/9j/|iVBORw0KGgo|UklGR|R0lGOD|Qk[0-3]|AAAA[A-Za-z0-9+/]{4}Z0eX)"),
        "base64 text; send the bytes that it encodes",
    ),
    (re.compile(rb"[\[{]"), "JSON; send the image's bytes as the body, not inside JSON"),
)
"""(start of a text, what it is)."""
_BINARIES: Final = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"%PDF", "PDF"),
)
"""(first bytes, what they start)."""
_VIDEO: Final = "a video or another file of its family"
HEIC: Final = "HEIC, as iPhones make it; send JPEG, or install the extra `heic`"


def image_format(data: bytes) -> Kind:
    """Return the type of an image, determined by its first bytes.

    Raises:
        UnsupportedImageError: any other content, including no bytes at all. The message names the
            type if it is a known one.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "BMP"
    if data[4:8] == b"ftyp" and _has_brand(data, _AVIF_BRANDS):
        return "AVIF"
    if decodes_heic() and data[4:8] == b"ftyp" and _has_brand(data, _HEIC_BRANDS):
        return "HEIC"
    named = _name(data)
    if named is not None:
        message = f"expected a {ACCEPTED} image; this is {named}"
    else:
        message = (
            f"expected a {ACCEPTED} image, but the content starts with: "
            f"{bytes(data[:8]).hex(' ')}. Convert the image to one of those types."
        )
    raise UnsupportedImageError(message)


def _name(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return HEIC if _has_brand(data, _HEIC_BRANDS) else _VIDEO
    for start, name in _BINARIES:
        if data.startswith(start):
            return name
    head = data[:_HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return "text without a character" if data else "an empty file, of 0 bytes"
    for pattern, name in _TEXTS:
        if pattern.match(head):
            return name
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Return whether there are only printable characters of ASCII, and line breaks."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _has_brand(data: bytes, brands: tuple[bytes, ...]) -> bool:
    """Return whether the file type box names one of ``brands`` (ISO/IEC 14496-12, section 4.3)."""
    size = min(int.from_bytes(data[:4], "big"), _HEAD_BYTES)
    named = (data[8:12], *(data[begin : begin + 4] for begin in range(16, size, 4)))
    return any(brand in brands for brand in named)
