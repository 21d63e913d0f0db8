"""The marker segments of a JPEG file: its frame, its scans, its metadata, its end.

A decoder finds out how many scans there are while it decodes them; this walk counts them before.
It follows markers as libjpeg does: a segment is skipped by its length, entropy-coded data up to the
next marker that is neither a stuffed zero nor a restart.

Source: ITU-T T.81, annex B.
"""

import re
from dataclasses import dataclass
from typing import Final

from cifar10.image_layout import ImageLayout
from cifar10.orientation import orientation_of

MAX_SEGMENTS: Final = 2_048
"""A JPEG of 10 MB has some 160 segments of metadata at most, a progressive one five for a scan. The
walk ends here: each segment costs a microsecond, and four bytes can be one."""

_EOI, _SOS, _SOI = 0xD9, 0xDA, 0xD8
_DHT, _DAC, _DQT, _DRI = 0xC4, 0xCC, 0xDB, 0xDD
_JPG, _APP0, _APP1, _APP14 = 0xC8, 0xE0, 0xE1, 0xEE
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {_DHT, _DAC, _JPG}
_STREAMED_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC9))
"""Sequential, 8 bits, Huffman or arithmetic coding."""
_PROGRESSIVE_FRAMES: Final = frozenset((0xC2, 0xCA))
_FOR_PIXELS: Final = _FRAMES | {_DHT, _DAC, _DQT, _DRI, _APP0, _APP14}
"""What decoding needs before the first scan. APP0 (JFIF) and APP14 (Adobe) say which colours the
components are; other segments are metadata, which Pillow would parse at length."""

_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""Not a stuffed zero, fill byte, restart or TEM, none of which ends or begins anything."""
_NONE: Final = frozenset(bytes((code,)) for code in (0, 1, *range(0xD0, 0xD8), 0xFF)) | {b""}
"""What follows 0xFF in those."""
_WINDOW: Final = 128 * 1024
"""How much is searched at once: Python's lock is held meanwhile."""

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """What :func:`read_markers` found."""

    frame: int = 0
    """Marker of the frame's segment (T.81, table B.1); 0 where there is none before the scans."""
    width: int = 0
    height: int = 0
    components: int = 0
    scans: tuple[int, ...] = ()
    """Where each scan's segment begins."""
    first_scan_components: int = 0
    segments: int = 0
    """Number of marker segments; more than :data:`MAX_SEGMENTS` where the walk gave up."""
    header: tuple[tuple[int, int], ...] = ()
    """(begin, end) of each segment before the first scan that decoding needs."""
    is_plain: bool = True
    """Whether those are all that lies before the first scan."""
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
        """Whether it is decoded row by row: one scan has all components, and it is sequential.
        libjpeg holds any other picture whole."""
        return self.frame in _STREAMED_FRAMES and self.first_scan_components >= self.components


def read_markers(data: bytes) -> JpegStructure:
    """Walk the markers of ``data``, which begins as a JPEG. Never raises, takes linear time."""
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
    """Whether the scans of a JPEG, taken together, give every coefficient to its last bit (T.81,
    section G.1.1). A file may end between two scans, and is decodable and yet cut short."""
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
    """Make the layout of a JPEG with at least one scan."""
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
    """Return where the first marker at or after ``position`` is; -1 where there is none."""
    size = len(data)
    while position < size:
        found = _MARKER.search(data, position, position + _WINDOW)
        if found is not None:
            return found.start()
        position += _WINDOW - 1  # its last byte may be the first of a marker
    return -1
