"""Read the boxes of an AVIF file: its size, its orientation, and the cost of its pictures.

The size in the boxes is only a claim: the decoder allocates what the AV1 stream says. So the
streams of all pictures (its parts, its transparency, thumbnails) are read too.

Sources: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (items), AV1 Image File Format v1.1.
"""

from dataclasses import dataclass, field
from typing import Final

from cifar10.formats.av1 import decoded_pixels
from cifar10.image_layout import ImageLayout

MAX_BOXES: Final = 4_096
MAX_ITEMS: Final = 1_024

_ORIENTATIONS: Final = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip
"""(quarter turns anticlockwise, axis of the mirror) → EXIF orientation."""


class _DamagedError(Exception):
    """The boxes contradict themselves."""


@dataclass
class _Meta:
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    """Item → its type."""
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Item → (begin, end) of each part of its data."""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(type, content) of each property, counted from 1."""
    uses: dict[int, list[int]] = field(default_factory=dict)
    """Item → the properties that it has."""


class _Reader:
    """Reads numbers, and the boxes in a part of a file."""

    def __init__(self, data: bytes, begin: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = begin
        self.end = len(data) if end is None else end

    def number(self, size: int) -> int:
        begin = self.position
        self.position += size
        if self.position > self.end:
            raise _DamagedError
        return int.from_bytes(self.data[begin : self.position], "big")

    def boxes(self) -> "list[tuple[bytes, _Reader]]":
        """Return (type, content) of every box."""
        found: list[tuple[bytes, _Reader]] = []
        while self.position + 8 <= self.end:
            begin = self.position
            size, kind = self.number(4), bytes(self.data[begin + 4 : begin + 8])
            self.position += 4
            if size == 1:
                size = self.number(8)
            end = begin + size if size else self.end
            if not self.position <= end <= self.end or len(found) == MAX_BOXES:
                raise _DamagedError
            found.append((kind, _Reader(self.data, self.position, end)))
            self.position = end
        return found


def avif_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like an AVIF. Never raises; takes linear time.

    Returns:
        The layout; its ``scans`` are the pixels that are decoded in all, in multiples of the
        picture's. None if the boxes are damaged or the cost of a picture cannot be read.
    """
    try:
        meta_box, meta = _read_meta(data)
        return _layout(data, meta_box, meta)
    except _DamagedError:
        return None


def _layout(data: bytes, meta_box: tuple[int, int], meta: _Meta) -> ImageLayout | None:
    used = [meta.properties[index - 1] for index in meta.uses.get(meta.primary, ())]
    size, angle, axis = None, 0, None
    for kind, content in used:
        if kind == b"ispe":
            box = _Reader(content, 4)
            size = box.number(4), box.number(4)
        elif kind == b"irot":
            angle = _Reader(content).number(1) & 3
        elif kind == b"imir":
            axis = _Reader(content).number(1) & 1
    if size is None or not size[0] or not size[1]:
        return None
    in_all = 0
    for item, kind in meta.kinds.items():
        if kind == b"av01":
            parts = meta.extents.get(item, ())
            pixels = decoded_pixels(b"".join(data[begin:end] for begin, end in parts))
            if pixels is None:
                return None
            in_all += pixels
    scans = max(1, -(-in_all // (size[0] * size[1])))
    return ImageLayout(
        "AVIF", *size, data, _pieces(data, meta_box), _ORIENTATIONS[angle, axis], scans
    )


def _pieces(data: bytes, meta_box: tuple[int, int]) -> tuple[bytes | memoryview, ...]:
    """Return the file as a still picture without EXIF: no decoder takes its animation, and none
    parses its metadata."""
    begin, end = meta_box
    view = memoryview(data)
    meta = data[begin:end].replace(b"Exif", b"none")
    return data[:8] + b"avif", view[12:begin], meta, view[end:]


def _read_meta(data: bytes) -> tuple[tuple[int, int], _Meta]:
    for kind, box in _Reader(data).boxes():
        if kind == b"meta":
            begin = box.position
            box.number(4)
            return (begin, box.end), _parse_meta(box)
    raise _DamagedError


def _parse_meta(box: _Reader) -> _Meta:
    meta = _Meta()
    boxes: dict[bytes, _Reader] = {}
    for kind, content in box.boxes():
        if kind in boxes:
            raise _DamagedError  # a decoder might take the other one
        boxes[kind] = content
    missing = {b"pitm", b"iinf", b"iloc", b"iprp"} - boxes.keys()
    if missing:
        raise _DamagedError
    pitm = boxes[b"pitm"]
    meta.primary = pitm.number(4 if _version(pitm) else 2)
    _read_kinds(boxes[b"iinf"], meta)
    _read_places(boxes[b"iloc"], boxes.get(b"idat"), meta)
    for kind, content in boxes[b"iprp"].boxes():
        if kind == b"ipco":
            meta.properties += [
                (name, content.data[one.position : one.end]) for name, one in content.boxes()
            ]
        elif kind == b"ipma":
            _read_uses(content, meta)
    if any(not 0 < use <= len(meta.properties) for uses in meta.uses.values() for use in uses):
        raise _DamagedError
    return meta


def _version(box: _Reader) -> int:
    """Read the version and the flags of a full box; return the version."""
    return box.number(4) >> 24


def _read_kinds(iinf: _Reader, meta: _Meta) -> None:
    iinf.number(4 if _version(iinf) else 2)
    for kind, infe in iinf.boxes():
        version = _version(infe)
        if kind != b"infe" or version not in (2, 3) or len(meta.kinds) == MAX_ITEMS:
            raise _DamagedError
        item = infe.number(2 if version == 2 else 4)
        infe.number(2)
        meta.kinds[item] = infe.number(4).to_bytes(4, "big")


def _read_places(iloc: _Reader, idat: _Reader | None, meta: _Meta) -> None:
    version = _version(iloc)
    sizes = iloc.number(2)
    offset_size, length_size = sizes >> 12, sizes >> 8 & 15
    base_size, index_size = sizes >> 4 & 15, sizes & 15
    left = MAX_ITEMS
    for _ in range(min(iloc.number(2 if version < 2 else 4), MAX_ITEMS + 1)):
        item = iloc.number(2 if version < 2 else 4)
        method = iloc.number(2) & 15 if version else 0
        iloc.number(2)
        base = iloc.number(base_size)
        if method == 1 and idat is not None:
            base += idat.position
        elif method:
            raise _DamagedError
        for _ in range(iloc.number(2)):
            left -= 1
            if left < 0 or version > 2:
                raise _DamagedError
            if version:
                iloc.number(index_size)
            begin = base + iloc.number(offset_size)
            length = iloc.number(length_size)
            end = begin + length if length else len(iloc.data)
            meta.extents.setdefault(item, []).append((begin, end))
    every = (one for parts in meta.extents.values() for one in parts)
    whole = len(iloc.data)
    if sum(max(0, min(end, whole) - begin) for begin, end in every) > 2 * whole:
        raise _DamagedError  # parts that overlap would be read many times


def _read_uses(ipma: _Reader, meta: _Meta) -> None:
    flags = ipma.number(4)
    for _ in range(min(ipma.number(4), MAX_ITEMS)):
        item = ipma.number(4 if flags >> 24 else 2)
        count = ipma.number(1)
        wide = flags & 1
        indices = [ipma.number(2) & 0x7FFF if wide else ipma.number(1) & 0x7F for _ in range(count)]
        meta.uses.setdefault(item, []).extend(index for index in indices if index)
