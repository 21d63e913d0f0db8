"""An opened image → its pixels: 8 bits, RGB, upright, over white, at the size a model wants."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what undoes it (EXIF 2.32, tag 0x0112)."""

_REDUCTION: Final = 2
"""JPEGs are decoded at the smallest of 1, 1/2, 1/4, 1/8 scale that is at least this many times as
large as the target, so that the final, filtered resize still has two source pixels for each one it
makes."""

_GREY_BLOCK_ROWS: Final = 64


def to_pixels(
    image: ImageFile.ImageFile, orientation: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Decode an opened image whole and squeeze it to ``size``.

    Args:
        image: not loaded yet.
        orientation: EXIF 2.32, tag 0x0112; any other number than 2 to 8 changes nothing.
        size: (width, height) of the result.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        Exception: whatever Pillow's decoders raise.
    """
    # At reduced scale the last row and column of pixels may lie partly outside of the picture.
    drafted = image.draft(None, (_REDUCTION * size[0], _REDUCTION * size[1]))
    box = drafted[1] if drafted else None
    _scale_transparency(image)
    image.load()
    tile = _eight_bit(image)
    if tile.size != size:
        tile = tile.resize(size, Image.Resampling.BICUBIC, box)
    if tile.mode == "RGBA":
        white = Image.new("RGBA", tile.size, (255, 255, 255, 255))
        tile = Image.alpha_composite(white, tile)
    if tile.mode != "RGB":
        tile = tile.convert("RGB")
    transpose = _TRANSPOSES.get(orientation)
    if transpose is not None:
        tile = tile.transpose(transpose)
    return np.array(tile, dtype=np.uint8)


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """Give a PNG's one transparent colour in the 8 bits that its pixels will have. Pillow leaves it
    in the bits of the file, so that it matches no pixel."""
    colour = image.info.get("transparency")
    depth = str(image.tile[0].args).rpartition(";")[2] if image.tile else ""
    if isinstance(colour, tuple) and depth == "16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int) and image.mode == "L" and depth in ("2", "4"):
        image.info["transparency"] = min(colour * (85 if depth == "2" else 17), 255)


def _eight_bit(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB or L, or RGBA where it has transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bit_grey(image)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """16-bit greyscale in 8 bits. Pillow would clip and not scale it, and forget transparency."""
    values = np.asarray(image)
    colour = image.info.get("transparency")
    bands = 1 if colour is None else 2
    grey = np.empty((*values.shape, bands), np.uint8)
    for row in range(0, len(values), _GREY_BLOCK_ROWS):  # not all at once: it would be in 32 bits
        block = values[row : row + _GREY_BLOCK_ROWS].astype(np.uint32)
        grey[row : row + _GREY_BLOCK_ROWS, :, 0] = (block + 128) // 257
        if colour is not None:
            grey[row : row + _GREY_BLOCK_ROWS, :, 1] = np.where(block == colour, 0, 255)
    if colour is None:
        return Image.fromarray(grey[:, :, 0])
    return Image.fromarray(grey).convert("RGBA")
