"""Decode an image for the model that answers it, within a limit on the time it may take."""

from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from cifar10.image_layout import ImageLayout
from cifar10.images import DecodeLimits, decode_layout, decode_plain_tile, inspect_image
from cifar10.labels import IMAGE_SIZE
from service.models import AskedModel, LoadedModel
from service.problems import Kind, Problem, try_later
from service.telemetry.metrics import Metrics

Decoded = tuple[NDArray[np.uint8], LoadedModel]
"""A decoded image, uint8 (1, height, width, 3), RGB, and the model that answers it."""
Found = Decoded | tuple[ImageLayout, LoadedModel]
"""A decoded image, or the layout of one that is still to be decoded."""


class Decoder:
    """Decodes images, in any thread.

    Args:
        limits: limits above which an image is refused.
        metrics: counts what is decoded.
    """

    def __init__(self, limits: DecodeLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics

    @property
    def max_pixels(self) -> int:
        """Most pixels of any image."""
        return self._limits.max_pixels

    def timed(self, image: bytes, asked: AskedModel, seconds: float, pixels: int) -> Found:
        """Do what :meth:`within` does, and count the image in the metrics if it was decoded."""
        started = perf_counter()
        found = self.within(image, asked, seconds, pixels)
        if isinstance(found[0], np.ndarray):
            self._count(len(image), started)
        return found

    def within(self, image: bytes, asked: AskedModel, seconds: float, pixels: int) -> Found:
        """Return the decoded image, or its layout if decoding it would exceed ``seconds`` or it has
        more than ``pixels``; and the model that answers it.

        Raises:
            Problem: 415 for content that is not an image, 422 for an image that is undecodable or
                too costly, 503 without enough memory.
        """
        try:
            model = asked.of_image(IMAGE_SIZE, IMAGE_SIZE)
            tile = decode_plain_tile(image, self._limits) if model.takes_tiles else None
            if tile is None:
                layout = inspect_image(image, self._limits, asked.target)
                model = asked.of_image(layout.width, layout.height)
                if layout.seconds(model.target) > seconds or layout.pixels > pixels:
                    return layout, model
                tile = decode_layout(layout, model.target)
        except (ImageError, MemoryError) as error:
            raise _refusal(error) from error
        return tile[np.newaxis], model

    def finish(self, layout: ImageLayout, model: LoadedModel) -> Decoded:
        """Decode an image of which :meth:`within` has returned the layout, and count it.

        Raises:
            Problem: as :meth:`within`.
        """
        started = perf_counter()
        try:
            tile = decode_layout(layout, model.target)
        except (ImageError, MemoryError) as error:
            raise _refusal(error) from error
        self._count(len(layout.data), started)
        return tile[np.newaxis], model

    def _count(self, size: int, started: float) -> None:
        self._metrics.decode_seconds.observe(perf_counter() - started)
        self._metrics.image_bytes.inc(size)


def _refusal(error: ImageError | MemoryError) -> Problem:
    if isinstance(error, MemoryError):
        detail = "not enough memory to decode the image; try again in a second"
        return try_later(Kind.QUEUE_FULL, detail)
    if isinstance(error, UnsupportedImageError):
        return Problem(Kind.UNSUPPORTED, str(error))
    kind = Kind.TOO_MANY_PIXELS if isinstance(error, ImageTooLargeError) else Kind.UNDECODABLE
    return Problem(kind, str(error))
