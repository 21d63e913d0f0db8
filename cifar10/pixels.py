"""Convert an opened image to pixels: 8-bit RGB, upright, over white, at the model's input size."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from cifar10.image_layout import ImageLayout, Target

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

_GREY_BLOCK_ROWS: Final = 64


def to_pixels(image: ImageFile.ImageFile, layout: ImageLayout, target: Target) -> NDArray[np.uint8]:
    """Decode an opened image and fit it to ``target``.

    Args:
        image: an image that has not been loaded yet.
        layout: its layout.
        target: the size of the result, and how to fit the image to it.

    Returns:
        uint8 (height, width, 3), RGB, 0–255, C-contiguous.

    Raises:
        Exception: whatever Pillow's decoders raise.
    """
    scale, size = layout.scale(target), layout.stored_size(target)
    # At reduced scale the last row and column of pixels may lie partly outside the picture.
    drafted = image.draft(None, (layout.width // scale, layout.height // scale))
    box = drafted[1] if drafted else (0.0, 0.0, float(layout.width), float(layout.height))
    _scale_transparency(image)
    image.load()
    tile = _eight_bit(image)
    if tile.size != size:
        box = _centre(box, size) if target.fit == "crop" else box
        tile = tile.resize(size, Image.Resampling.BICUBIC, box)
    if tile.mode == "RGBA":
        white = Image.new("RGBA", tile.size, (255, 255, 255, 255))
        tile = Image.alpha_composite(white, tile)
    if tile.mode != "RGB":
        tile = tile.convert("RGB")
    transpose = _TRANSPOSES.get(layout.orientation)
    if transpose is not None:
        tile = tile.transpose(transpose)
    return np.array(tile, dtype=np.uint8)


def _centre(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the largest centred part of ``box``, which starts at (0, 0), with the aspect ratio of
    ``size``."""
    width, height = box[2:]
    kept_width = min(width, height * size[0] / size[1])
    kept_height = min(height, width * size[1] / size[0])
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height


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
