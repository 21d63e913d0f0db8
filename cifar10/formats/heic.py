"""Read the boxes of a HEIC file: its size, and the cost of its pictures.

Decoding needs pillow-heif, which is optional. The size in the boxes is only a claim: the decoder
allocates what the HEVC streams say, and a grid may name the same tile many times. So the streams of
all pictures (tiles, transparency, gain maps, thumbnails) are read too. Only pictures of HEVC and
grids of them are accepted.

Source: ISO/IEC 23008-12, sections 6.5 and 6.6.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any, Final

from cifar10.formats.heif_boxes import DamagedError, Meta, Reader, read_meta, still_picture
from cifar10.formats.hevc import decoded_pixels
from cifar10.image_layout import ImageLayout

_PACKAGE: Final = "pillow_heif"
_PICTURES: Final = (b"hvc1", b"hev1")
_GRID: Final = b"grid"


@cache
def decodes_heic() -> bool:
    """Return whether pillow-heif is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def open_heic(file: Any) -> Any:
    """Return an opened HEIC file, which decodes in this thread and only its main picture."""
    return _plugin().HeifImageFile(file)


@cache
def _plugin() -> Any:
    options: Any = importlib.import_module(f"{_PACKAGE}.options")
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return importlib.import_module(f"{_PACKAGE}.as_plugin")


def heic_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like a HEIC. Never raises; takes linear time.

    The decoder itself turns and mirrors the picture, so the size is that afterwards and there is no
    orientation left; EXIF's is ignored, as the standard says.

    Returns:
        The layout; its ``scans`` are the pixels that are decoded in all, in multiples of the
        picture's. None if the boxes are damaged, or the cost of a picture cannot be read.
    """
    try:
        meta_box, meta = read_meta(data)
        width, height = _shown_size(meta)
        in_all = _pixels_in_all(data, meta)
    except DamagedError:
        return None
    scans = max(1, -(-in_all // (width * height)))
    pieces = still_picture(data, meta_box, b"heic")
    return ImageLayout("HEIC", width, height, data, pieces, scans=scans)


def _pixels_in_all(data: bytes, meta: Meta) -> int:
    """Return the pixels of all pictures, with each tile as often as a grid names it."""
    coded = {}
    for item, kind in meta.kinds.items():
        if kind in _PICTURES:
            coded[item] = _coded_pixels(data, meta, item)
    grids = {
        item: _grid_pixels(data, meta, item, coded)
        for item, kind in meta.kinds.items()
        if kind == _GRID
    }
    tiles = {tile for grid in grids for tile in _named(meta, grid, b"dimg")}
    additions = {item: _named(meta, item, b"auxl") for item in meta.references}
    decoded = coded.keys() | grids.keys()
    if meta.primary not in decoded or meta.primary in tiles:
        raise DamagedError
    for item, of in additions.items():
        # The decoder would decode the transparency of a tile with each use of the tile.
        if any(one in tiles or additions.get(one) for one in of) or (of and item not in decoded):
            raise DamagedError
    alone = sum(pixels for item, pixels in coded.items() if item not in tiles)
    return alone + sum(grids.values())


def _coded_pixels(data: bytes, meta: Meta, item: int) -> int:
    configurations = [content for kind, content in meta.properties_of(item) if kind == b"hvcC"]
    if len(configurations) != 1:
        raise DamagedError
    pixels = decoded_pixels(configurations[0], meta.data_of(item, data))
    if pixels is None:
        raise DamagedError
    return pixels


def _grid_pixels(data: bytes, meta: Meta, item: int, coded: dict[int, int]) -> int:
    """Return the pixels of a grid's tiles (section 6.6.2.3)."""
    header = Reader(meta.data_of(item, data))
    header.number(1)
    size = 4 if header.number(1) & 1 else 2
    count = (header.number(1) + 1) * (header.number(1) + 1)
    width, height = header.number(size), header.number(size)
    tiles = _named(meta, item, b"dimg")
    if len(tiles) != count or any(tile not in coded for tile in tiles):
        raise DamagedError
    pixels = sum(coded[tile] for tile in tiles)
    if width * height > pixels or (width, height) != _stored_size(meta, item):
        raise DamagedError
    return pixels


def _named(meta: Meta, item: int, wanted: bytes) -> list[int]:
    """Return the items that an item refers to with a type of reference."""
    return [other for kind, other in meta.references.get(item, ()) if kind == wanted]


def _stored_size(meta: Meta, item: int) -> tuple[int, int]:
    for kind, content in meta.properties_of(item):
        if kind == b"ispe":
            box = Reader(content, 4)
            return box.number(4), box.number(4)
    raise DamagedError


def _shown_size(meta: Meta) -> tuple[int, int]:
    """Return (width, height) of the picture after it has been cropped and turned."""
    width, height = _stored_size(meta, meta.primary)
    for kind, content in meta.properties_of(meta.primary):
        box = Reader(content)
        if kind == b"irot" and box.number(1) & 1:
            width, height = height, width
        elif kind == b"clap":
            parts = [box.number(4) for _ in range(4)]
            if not parts[1] or not parts[3]:
                raise DamagedError
            cropped = parts[0] // parts[1], parts[2] // parts[3]
            if cropped[0] > width or cropped[1] > height:
                raise DamagedError
            width, height = cropped
    if not width or not height:
        raise DamagedError
    return width, height
