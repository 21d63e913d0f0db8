"""Read the marker segments of a JPEG file: frame, scans, metadata and end.

A decoder learns the number of scans only while it decodes them; this module counts them beforehand.
It follows markers as libjpeg does: it skips a segment by its length, and entropy-coded data up to
the next marker that is neither a stuffed zero nor a restart.

Source: ITU-T T.81, annex B.
"""

import re
from dataclasses import dataclass
from typing import Final

from cifar10.formats.orientation import orientation_of
from cifar10.image_layout import ImageLayout

MAX_SEGMENTS: Final = 2_048
"""Number of segments after which reading stops. A JPEG of 10 MB has some 160 metadata segments at
most, and a progressive one five per scan. A segment takes a microsecond and can have four bytes."""

_EOI, _SOS, _SOI = 0xD9, 0xDA, 0xD8
_DHT, _DAC, _DQT, _DRI = 0xC4, 0xCC, 0xDB, 0xDD
_JPG, _APP0, _APP1, _APP14 = 0xC8, 0xE0, 0xE1, 0xEE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {_DHT, _DAC, _JPG}
_STREAMED_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC9))
"""Frame types that are decoded row by row: sequential, 8 bits, Huffman or arithmetic coding."""
_PROGRESSIVE_FRAMES: Final = frozenset((0xC2, 0xCA))
_FOR_PIXELS: Final = _FRAMES | {_DHT, _DAC, _DQT, _DRI, _APP0, _APP14}
"""Segments before the first scan that decoding needs. APP0 (JFIF) and APP14 (Adobe) give the colour
space; other segments are metadata, which Pillow would spend time parsing."""

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""Pattern of a marker. Excludes stuffed zeros, fill bytes, restarts and TEM, which delimit
nothing."""
_NONE: Final = frozenset(bytes((code,)) for code in (0, 1, *range(0xD0, 0xD8), 0xFF)) | {b""}
"""Bytes after 0xFF that do not make it a marker."""
_WINDOW: Final = 128 * 1024
"""Bytes searched at once; a search holds Python's lock."""

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """Structure of a JPEG, as found by :func:`read_markers`."""

    frame: int = 0
    """Marker of the frame's segment (T.81, table B.1); 0 if there is none before the scans."""
    width: int = 0
    height: int = 0
    components: int = 0
    scans: tuple[int, ...] = ()
    """Offset of each scan's segment."""
    first_scan_components: int = 0
    segments: int = 0
    """Number of marker segments; above :data:`MAX_SEGMENTS` if reading stopped there."""
    header: tuple[tuple[int, int], ...] = ()
    """(begin, end) of each segment before the first scan that decoding needs."""
    is_plain: bool = True
    """Whether nothing else is before the first scan."""
    exif: bytes | None = None
    xmp: bytes | None = None
    ends: bool = False
    """Whether the end marker was reached."""

    @property
    def is_known_frame(self) -> bool:
        """Whether libjpeg decodes frames of this type, with and without reduced scale."""
        return self.frame in _STREAMED_FRAMES | _PROGRESSIVE_FRAMES

    @property
    def is_streamed(self) -> bool:
        """Whether it is decoded row by row: sequential, with all components in one scan. libjpeg
        holds any other picture whole in memory."""
        return self.frame in _STREAMED_FRAMES and self.first_scan_components >= self.components


def read_markers(data: bytes) -> JpegStructure:
    """Read the markers of ``data``, which starts like a JPEG. Never raises; takes linear time."""
    frame = width = height = components = 0
    first_scan_components = segments = 0
    scans: list[int] = []
    header: list[tuple[int, int]] = []
    exif: list[bytes] = []
    xmp: bytes | None = None
    is_plain, ends = True, False
    position, size = 2, len(data)
    while segments <= MAX_SEGMENTS:
        begin = position
        if data[position : position + 1] != b"\xff" or data[position + 1 : position + 2] in _NONE:
            begin = _next_marker(data, position)
            if begin < 0:
                break
        marker = data[begin + 1]
        segments += 1
        is_plain &= bool(scans) or begin == position
        if marker == _EOI:
            ends = True
            break
        if marker == _SOI:
            position = begin + 2
            continue
        if begin + 4 > size:
            break
        end = begin + 2 + max(data[begin + 2] << 8 | data[begin + 3], 2)
        if marker == _SOS:
            if not scans:
                first_scan_components = data[begin + 4] if begin + 4 < size else 0
            scans.append(begin)
        elif not scans:
            if marker in _FOR_PIXELS:
                header.append((begin, end))
            else:
                is_plain = False
            if marker in _FRAMES and not frame and begin + 10 <= size:
                frame = marker
                height = data[begin + 5] << 8 | data[begin + 6]
                width = data[begin + 7] << 8 | data[begin + 8]
                components = data[begin + 9]
            elif marker == _APP1:
                if data.startswith(_EXIF, begin + 4):
                    exif.append(data[begin + 4 + (6 if exif else 0) : end])
                elif xmp is None and data.startswith(_XMP, begin + 4):
                    xmp = data[begin + 4 + len(_XMP) : end]
        position = end
    return JpegStructure(
        frame,
        width,
        height,
        components,
        tuple(scans),
        first_scan_components,
        segments,
        tuple(header),
        is_plain,
        b"".join(exif) or None,
        xmp,
        ends,
    )


def has_all_scans(data: bytes, structure: JpegStructure) -> bool:
    """Return whether the scans of a JPEG together contain every bit of every coefficient (T.81,
    section G.1.1). A file that ends between two scans is decodable but truncated."""
    if structure.frame not in _PROGRESSIVE_FRAMES:
        return True
    missing: dict[int, set[int]] = {}
    for begin in structure.scans:
        count = data[begin + 4] if begin + 4 < len(data) else 0
        components = data[begin + 5 : begin + 5 + 2 * count : 2]
        band = data[begin + 5 + 2 * count : begin + 8 + 2 * count]
        if len(band) < 3:
            return False
        for component in components:
            left = missing.setdefault(component, set(range(64)))
            if not band[2] & 15:
                left.difference_update(range(band[0], band[1] + 1))
    return len(missing) == structure.components and not any(missing.values())


def jpeg_layout(data: bytes, structure: JpegStructure) -> ImageLayout:
    """Return the layout of a JPEG with at least one scan."""
    pieces: tuple[bytes | memoryview, ...] = ()
    if not structure.is_plain:
        header = (data[begin:end] for begin, end in structure.header)
        pieces = (data[:2], *header, memoryview(data)[structure.scans[0] :])
    return ImageLayout(
        "JPEG",
        structure.width,
        structure.height,
        data,
        pieces,
        orientation_of(structure.exif, structure.xmp),
        len(structure.scans),
        structure.is_streamed,
        structure.ends,
    )


def _next_marker(data: bytes, position: int) -> int:
    """Return the offset of the first marker at or after ``position``; -1 if there is none."""
    size = len(data)
    while position < size:
        found = _MARKER.search(data, position, position + _WINDOW)
        if found is not None:
            return found.start()
        position += _WINDOW - 1  # overlap by one byte: a marker may start there
    return -1
