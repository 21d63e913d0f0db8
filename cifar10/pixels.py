"""Convert an opened image to pixels: 8-bit RGB, upright, over white, at the model's input size."""

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
"""EXIF orientation → the transposition that undoes it (EXIF 2.32, tag 0x0112)."""

_REDUCTION: Final = 2
"""Minimum ratio of decoded to target size for JPEGs. They are decoded at the smallest scale of 1,
1/2, 1/4, 1/8 that reaches it, so that the final, filtered resize has two source pixels per target
pixel."""

_GREY_BLOCK_ROWS: Final = 64


def to_pixels(
    image: ImageFile.ImageFile, orientation: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Decode an opened image and resize it to ``size``, without cropping.

    Args:
        image: an image that has not been loaded yet.
        orientation: EXIF 2.32, tag 0x0112; numbers other than 2 to 8 have no effect.
        size: (width, height) of the result.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        Exception: whatever Pillow's decoders raise.
    """
    # At reduced scale the last row and column of pixels may lie partly outside the picture.
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
    """Scale a PNG's transparent colour to the 8 bits that its pixels will have. Pillow leaves it at
    the file's bit depth, so that it would match no pixel."""
    colour = image.info.get("transparency")
    depth = str(image.tile[0].args).rpartition(";")[2] if image.tile else ""
    if isinstance(colour, tuple) and depth == "16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    elif isinstance(colour, int) and image.mode == "L" and depth in ("2", "4"):
        image.info["transparency"] = min(colour * (85 if depth == "2" else 17), 255)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return ``image`` in mode RGB or L, or in RGBA if it has transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bit_grey(image)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Return 16-bit greyscale scaled to 8 bits. Pillow would clip it and drop its transparency."""
    values = np.asarray(image)
    colour = image.info.get("transparency")
    bands = 1 if colour is None else 2
    grey = np.empty((*values.shape, bands), np.uint8)
    for row in range(0, len(values), _GREY_BLOCK_ROWS):  # in blocks, to bound memory
        block = values[row : row + _GREY_BLOCK_ROWS].astype(np.uint32)
        grey[row : row + _GREY_BLOCK_ROWS, :, 0] = (block + 128) // 257
        if colour is not None:
            grey[row : row + _GREY_BLOCK_ROWS, :, 1] = np.where(block == colour, 0, 255)
    if colour is None:
        return Image.fromarray(grey[:, :, 0])
    return Image.fromarray(grey).convert("RGBA")
