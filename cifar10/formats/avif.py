"""Read the boxes of an AVIF file: its size, its orientation, and the cost of its pictures.

The size in the boxes is only a claim: the decoder allocates what the AV1 stream says. So the
streams of all pictures (its parts, its transparency, thumbnails) are read too.

Source: AV1 Image File Format v1.1.
"""

from typing import Final

from cifar10.formats.av1 import decoded_pixels
from cifar10.formats.heif_boxes import DamagedError, Meta, Reader, read_meta, still_picture
from cifar10.image_layout import ImageLayout

_ORIENTATIONS: Final = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip
"""(quarter turns anticlockwise, axis of the mirror) → EXIF orientation."""


def avif_layout(data: bytes) -> ImageLayout | None:
    """Read the layout of ``data``, which starts like an AVIF. Never raises; takes linear time.

    Returns:
        The layout; its ``scans`` are the pixels that are decoded in all, in multiples of the
        picture's. None if the boxes are damaged or the cost of a picture cannot be read.
    """
    try:
        meta_box, meta = read_meta(data)
        return _layout(data, meta_box, meta)
    except DamagedError:
        return None


def _layout(data: bytes, meta_box: tuple[int, int], meta: Meta) -> ImageLayout | None:
    size, angle, axis = None, 0, None
    for kind, content in meta.properties_of(meta.primary):
        if kind == b"ispe":
            box = Reader(content, 4)
            size = box.number(4), box.number(4)
        elif kind == b"irot":
            angle = Reader(content).number(1) & 3
        elif kind == b"imir":
            axis = Reader(content).number(1) & 1
    if size is None or not size[0] or not size[1]:
        return None
    in_all = 0
    for item, kind in meta.kinds.items():
        if kind == b"av01":
            pixels = decoded_pixels(meta.data_of(item, data))
            if pixels is None:
                return None
            in_all += pixels
    scans = max(1, -(-in_all // (size[0] * size[1])))
    return ImageLayout(
        "AVIF",
        *size,
        data,
        still_picture(data, meta_box, b"avif"),
        _ORIENTATIONS[angle, axis],
        scans,
    )
