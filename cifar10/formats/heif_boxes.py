"""Read the boxes of HEIF files (AVIF and HEIC): items, their data, properties and references.

Sources: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (items).
"""

from dataclasses import dataclass, field
from typing import Final

MAX_BOXES: Final = 4_096
MAX_ITEMS: Final = 1_024


Pieces = tuple[bytes | memoryview, ...]


class DamagedError(Exception):
    """The boxes contradict themselves."""


@dataclass
class Meta:
    """Content of the box ``meta``."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    """Item → its type."""
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Item → (begin, end) of each part of its data."""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(type, content) of each property, counted from 1."""
    uses: dict[int, list[int]] = field(default_factory=dict)
    """Item → the properties that it has."""
    references: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)
    """Item → (type, item) of each reference."""

    def properties_of(self, item: int) -> list[tuple[bytes, bytes]]:
        """Return (type, content) of each property that an item has, in order."""
        return [self.properties[index - 1] for index in self.uses.get(item, ())]

    def data_of(self, item: int, data: bytes) -> bytes:
        """Return an item's data, from the file."""
        return b"".join(data[begin:end] for begin, end in self.extents.get(item, ()))


class Reader:
    """Reads numbers, and the boxes in a part of a file."""

    def __init__(self, data: bytes, begin: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = begin
        self.end = len(data) if end is None else end

    def number(self, size: int) -> int:
        """Return the next unsigned number of ``size`` bytes."""
        begin = self.position
        self.position += size
        if self.position > self.end:
            raise DamagedError
        return int.from_bytes(self.data[begin : self.position], "big")

    def boxes(self) -> "list[tuple[bytes, Reader]]":
        """Return (type, content) of every box."""
        found: list[tuple[bytes, Reader]] = []
        while self.position + 8 <= self.end:
            begin = self.position
            size, kind = self.number(4), bytes(self.data[begin + 4 : begin + 8])
            self.position += 4
            if size == 1:
                size = self.number(8)
            end = begin + size if size else self.end
            if not self.position <= end <= self.end or len(found) == MAX_BOXES:
                raise DamagedError
            found.append((kind, Reader(self.data, self.position, end)))
            self.position = end
        return found


def read_meta(data: bytes) -> tuple[tuple[int, int], Meta]:
    """Return (begin, end) of the box ``meta`` of a file, and what it says.

    Raises:
        DamagedError: there is none, or it contradicts itself.
    """
    for kind, box in Reader(data).boxes():
        if kind == b"meta":
            begin = box.position
            box.number(4)
            return (begin, box.end), _parse_meta(box)
    raise DamagedError


def _parse_meta(box: Reader) -> Meta:
    meta = Meta()
    boxes: dict[bytes, Reader] = {}
    for kind, content in box.boxes():
        if kind in boxes:
            raise DamagedError  # a decoder might take the other one
        boxes[kind] = content
    missing = {b"pitm", b"iinf", b"iloc", b"iprp"} - boxes.keys()
    if missing:
        raise DamagedError
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
    if b"iref" in boxes:
        _read_references(boxes[b"iref"], meta)
    if any(not 0 < use <= len(meta.properties) for uses in meta.uses.values() for use in uses):
        raise DamagedError
    return meta


def _version(box: Reader) -> int:
    """Read the version and the flags of a full box; return the version."""
    return box.number(4) >> 24


def _read_kinds(iinf: Reader, meta: Meta) -> None:
    iinf.number(4 if _version(iinf) else 2)
    for kind, infe in iinf.boxes():
        version = _version(infe)
        if kind != b"infe" or version not in (2, 3) or len(meta.kinds) == MAX_ITEMS:
            raise DamagedError
        item = infe.number(2 if version == 2 else 4)
        infe.number(2)
        meta.kinds[item] = infe.number(4).to_bytes(4, "big")


def _read_places(iloc: Reader, idat: Reader | None, meta: Meta) -> None:
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
            raise DamagedError
        for _ in range(iloc.number(2)):
            left -= 1
            if left < 0 or version > 2:
                raise DamagedError
            if version:
                iloc.number(index_size)
            begin = base + iloc.number(offset_size)
            length = iloc.number(length_size)
            end = begin + length if length else len(iloc.data)
            meta.extents.setdefault(item, []).append((begin, end))
    every = (one for parts in meta.extents.values() for one in parts)
    whole = len(iloc.data)
    if sum(max(0, min(end, whole) - begin) for begin, end in every) > 2 * whole:
        raise DamagedError  # parts that overlap would be read many times


def _read_uses(ipma: Reader, meta: Meta) -> None:
    flags = ipma.number(4)
    for _ in range(min(ipma.number(4), MAX_ITEMS)):
        item = ipma.number(4 if flags >> 24 else 2)
        count = ipma.number(1)
        wide = flags & 1
        indices = [ipma.number(2) & 0x7FFF if wide else ipma.number(1) & 0x7F for _ in range(count)]
        meta.uses.setdefault(item, []).extend(index for index in indices if index)


def _read_references(iref: Reader, meta: Meta) -> None:
    size = 4 if _version(iref) else 2
    left = MAX_ITEMS
    for kind, one in iref.boxes():
        item = one.number(size)
        for _ in range(one.number(2)):
            left -= 1
            if left < 0:
                raise DamagedError
            meta.references.setdefault(item, []).append((kind, one.number(size)))


def still_picture(data: bytes, meta_box: tuple[int, int], brand: bytes) -> Pieces:
    """Return the file as a still picture without EXIF and XMP: no decoder takes its animation, and
    none parses its metadata."""
    begin, end = meta_box
    view = memoryview(data)
    meta = data[begin:end].replace(b"Exif", b"none").replace(b"mime", b"none")
    return data[:8] + brand, view[12:begin], meta, view[end:]
