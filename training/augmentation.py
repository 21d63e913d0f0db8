"""Apply a recipe's :class:`Augmentation` to training images.

This works on uint8 pixels in NumPy, before the images reach Keras, so it is the same on every
backend. The caller seeds the generator, so that a resumed training sees the same images.
"""

from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from cifar10.labels import IMAGE_SIZE
from training.recipes.schema import Augmentation

_QUALITY: Final = (30, 96)
_SIDE_BELOW: Final = (16, 29)
_SIDE_ABOVE: Final = (48, 257)
"""Ranges of the side of a resized image of 32 × 32 pixels; proportional for other sizes."""
_SAMPLING: Final = ("444", "420")
_FILTERS: Final = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
)
_LIGHT: Final = 0.2
_GREY: Final = 120
"""About the mean of CIFAR-10's training images."""


def augment(
    images: NDArray[np.uint8],
    augmentation: Augmentation,
    random: np.random.Generator,
    flipped: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Return an augmented copy of ``images``.

    Args:
        images: uint8 (N, S, S, 3), RGB.
        augmentation: what to change.
        random: random number generator.
        flipped: images to flip, bool (N,); None: drawn at random. See
            :func:`alternating_flips`.

    Returns:
        uint8 (N, S, S, 3), RGB, in the same order; smaller if the augmentation crops.
    """
    count = len(images)
    changed = _shifted(images, augmentation.shift, random)
    if augmentation.flip:
        drawn = random.random(count) < 0.5
        flipped = drawn if flipped is None else flipped
        changed[flipped] = changed[flipped, :, ::-1]
    for index in np.flatnonzero(random.random(count) < augmentation.light):
        changed[index] = _relit(changed[index], random)
    for index in np.flatnonzero(random.random(count) < augmentation.resize):
        changed[index] = _resized(changed[index], random)
    for index in np.flatnonzero(random.random(count) < augmentation.jpeg):
        changed[index] = _recompressed(changed[index], random)
    if augmentation.cutout:
        _cut_out(changed, augmentation.cutout, random)
    return _cropped(changed, augmentation.crop, random) if augmentation.crop else changed


def alternating_flips(count: int, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Return which of ``count`` images are flipped in ``epoch``, bool (count,), in dataset order.

    Half of the images, drawn from ``seed`` alone, are flipped in even epochs, the others in odd
    ones.
    """
    first = np.random.default_rng((seed, 0)).random(count) < 0.5
    return first ^ bool(epoch % 2)


def _shifted(
    images: NDArray[np.uint8], shift: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return each image shifted by up to ``shift`` pixels both ways; the edges are mirrored."""
    if not shift:
        return images.copy()
    around = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    return _cropped(np.pad(images, around, mode="reflect"), images.shape[1], random)


def _cropped(
    images: NDArray[np.uint8], side: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a random square of ``side`` pixels of each image, (N, larger, larger, 3)."""
    places = images.shape[1] - side + 1
    offsets = random.integers(0, places, (len(images), 2))
    changed = np.empty((len(images), side, side, images.shape[3]), images.dtype)
    for down in range(places):
        for right in range(places):
            chosen = np.flatnonzero((offsets[:, 0] == down) & (offsets[:, 1] == right))
            changed[chosen] = images[chosen, down : down + side, right : right + side]
    return changed


def _cut_out(images: NDArray[np.uint8], side: int, random: np.random.Generator) -> None:
    """Make a square of each image grey, in place; its centre is anywhere in the image."""
    centres = random.integers(0, images.shape[1], (len(images), 2))
    for image, (row, column) in zip(images, centres, strict=True):
        top, left = max(0, row - side // 2), max(0, column - side // 2)
        image[top : max(0, row - side // 2 + side), left : max(0, column - side // 2 + side)] = (
            _GREY
        )


def _relit(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    contrast, brightness = random.uniform(-_LIGHT, _LIGHT, 2)
    pixels = image.astype(np.float32)
    middle = pixels.mean()
    pixels = (pixels - middle) * (1 + contrast) + middle * (1 + brightness)
    relit: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return relit


def _resized(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    sides = _SIDE_BELOW if random.random() < 0.5 else _SIDE_ABOVE
    whole = image.shape[0]
    side = int(random.integers(*sides)) * whole // IMAGE_SIZE
    there, back = random.integers(len(_FILTERS), size=2)
    picture = Image.fromarray(image).resize((side, side), _FILTERS[there])
    back_again = picture.resize((whole, whole), _FILTERS[back])
    return np.array(back_again, np.uint8)


def _recompressed(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    quality = int(random.integers(*_QUALITY))
    sampling = _SAMPLING[int(random.integers(len(_SAMPLING)))]
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling=sampling
    )
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return decoded
