"""Test images as users send them: as files, decoded as the service decodes them.

A CIFAR-10 tile is a photo made small. Users send photos: a tile is enlarged by a bicubic filter,
encoded as the file that a camera, an editor or a browser makes, and decoded by
:func:`cifar10.images.decode_image`, as in the service. Enlarging adds no detail, so such a copy is
what a perfect photo of the tile would be after one more decoding.
"""

import io
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.measure.corruptions import SEED, Images
from cifar10.images import decode_image
from cifar10.labels import IMAGE_SIZE

Encode = Callable[[Image.Image, np.random.Generator], bytes]
"""Encodes one tile as the bytes of a file."""


@dataclass(frozen=True)
class Sending:
    """One way to send an image."""

    name: str
    encode: Encode


def sent(sending: Sending, images: Images, seed: int = SEED, workers: int = 1) -> Images:
    """Encode and decode ``images`` as the service receives them; the same for the same arguments.

    Args:
        sending: one of :data:`SENDINGS`.
        images: uint8 (N, 32, 32, 3), RGB.
        seed: of the crops. Each way and image has a random stream of its own.
        workers: images encoded at the same time.

    Returns:
        uint8 (N, 32, 32, 3), RGB.
    """
    name = zlib.crc32(sending.name.encode())

    def one(position: int) -> NDArray[np.uint8]:
        stream = np.random.default_rng([seed, name, position])
        return decode_image(sending.encode(Image.fromarray(images[position]), stream))

    found = np.empty_like(images)
    with ThreadPoolExecutor(workers) as pool:
        for position, tile in enumerate(pool.map(one, range(len(images)))):
            found[position] = tile
    return found


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tile(kind: str, **options: Any) -> Encode:
    """Encode the 32 × 32 tile itself."""
    return lambda image, _: _file(image, kind, **options)


def _photo(width: int, height: int, kind: str, **options: Any) -> Encode:
    """Enlarge to ``width`` × ``height``. Another aspect ratio distorts the image, and the service's
    decoding undoes that."""

    def encode(image: Image.Image, _: np.random.Generator) -> bytes:
        return _file(image.resize((width, height), Image.Resampling.BICUBIC), kind, **options)

    return encode


def _cropped(most: int, size: int, kind: str, **options: Any) -> Encode:
    """Cut up to ``most`` pixels off each side of the tile, then enlarge."""

    def encode(image: Image.Image, random: np.random.Generator) -> bytes:
        left, top, right, bottom = (int(cut) for cut in random.integers(0, most + 1, 4))
        box = (left, top, IMAGE_SIZE - right, IMAGE_SIZE - bottom)
        photo = image.resize((size, size), Image.Resampling.BICUBIC, box)
        return _file(photo, kind, **options)

    return encode


SENDINGS: Final = (
    Sending("tile, PNG", _tile("PNG")),
    Sending("tile, JPEG quality 90", _tile("JPEG", quality=90)),
    Sending("tile, JPEG quality 75", _tile("JPEG", quality=75)),
    Sending("tile, JPEG quality 50", _tile("JPEG", quality=50)),
    Sending("tile, JPEG quality 30", _tile("JPEG", quality=30)),
    Sending("tile, WebP quality 80", _tile("WEBP", quality=80)),
    Sending("photo 512 × 512, JPEG quality 90", _photo(512, 512, "JPEG", quality=90)),
    Sending("photo 512 × 512, JPEG quality 50", _photo(512, 512, "JPEG", quality=50)),
    Sending("photo 640 × 480, JPEG quality 85", _photo(640, 480, "JPEG", quality=85)),
    Sending("thumbnail 100 × 100, PNG", _photo(100, 100, "PNG")),
    Sending("cropped by up to 2 of 32 pixels a side, 256 × 256, JPEG quality 90",
            _cropped(2, 256, "JPEG", quality=90)),
)  # fmt: skip
"""All ways. A tile as PNG keeps its pixels, so it must lose no accuracy."""
