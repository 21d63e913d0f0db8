"""Image bytes → probabilities, without ever holding up the event loop for long.

Short work (a small tile's decoding) is done where it stands. Long work goes to one of two threads,
decoding and inference, behind a bounded queue: what does not fit is refused at once. Batching would
take the place of :meth:`Inference.predict`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import ImageTooLargeError, UndecodableImageError, UnsupportedImageError
from cifar10.images import DecodeLimits, decode_image
from service.metrics import Metrics
from service.models import LoadedModel
from service.problems import Kind, Problem, try_later
from service.settings import Settings
from service.upload import extract_image

T = TypeVar("T")

INLINE: Final = DecodeLimits(16 * 1024, 64 * 64, 64 * 64)
"""What is decoded on the event loop: about half a millisecond at most. The pixels are bounded
too, because a few bytes of PNG can unpack to a large picture."""


class BoundedThread:
    """One thread, and at most ``bound`` calls waiting for it or running in it."""

    def __init__(self, name: str, bound: int) -> None:
        self._bound = bound
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._places = BoundedSemaphore(bound)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` in the thread. Cancelling keeps it from starting.

        Raises:
            Problem: 503, there is no place in the queue.
        """
        if not self._places.acquire(blocking=False):
            detail = f"{self._bound} images are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        future = self._executor.submit(function, *arguments)
        # Not when the caller stops waiting: a call that has started still fills its place.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()

    def stop(self) -> None:
        """Drop what has not started, and let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Inference:
    """Decoding and prediction for one worker process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limits = settings.decode_limits
        self._metrics = metrics
        self._decoding = BoundedThread("decode", settings.queue_bound)
        self._predicting = BoundedThread("predict", settings.queue_bound)

    async def decode(self, body: bytes, content_type: bytes) -> NDArray[np.uint8]:
        """The tile in a request's body: uint8 (32, 32, 3), RGB.

        Raises:
            Problem: 400 a bad form, 415 not an image, 422 undecodable or too many pixels,
                503 too many large images wait already.
        """
        if len(body) > INLINE.max_bytes:
            return await self._decoding.run(self._decode, body, content_type, self._limits)
        try:
            return self._decode(body, content_type, INLINE)
        except Problem as problem:
            if problem.kind is not Kind.TOO_MANY_PIXELS:
                raise
        return await self._decoding.run(self._decode, body, content_type, self._limits)

    def _decode(self, body: bytes, content_type: bytes, limits: DecodeLimits) -> NDArray[np.uint8]:
        started = perf_counter()
        image = extract_image(body, content_type)
        try:
            tile = decode_image(image, limits)
        except UnsupportedImageError as error:
            raise Problem(Kind.UNSUPPORTED, str(error)) from error
        except ImageTooLargeError as error:
            raise Problem(Kind.TOO_MANY_PIXELS, str(error)) from error
        except UndecodableImageError as error:
            raise Problem(Kind.UNDECODABLE, str(error)) from error
        self._metrics.decode_seconds.observe(perf_counter() - started)
        return tile

    async def predict(self, model: LoadedModel, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of one tile: float32 (10,), summing to 1.

        Raises:
            Problem: 503, the queue is full.
        """
        return await self._predicting.run(self._predict, model, tile)

    def _predict(self, model: LoadedModel, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        started = perf_counter()
        probabilities: NDArray[np.float32] = model.predictor.predict(tile[np.newaxis])[0]
        seconds = perf_counter() - started
        self._metrics.inference_seconds.labels(model.card.name).observe(seconds)
        return probabilities

    def stop(self) -> None:
        """End both threads; what has not started is dropped."""
        self._decoding.stop()
        self._predicting.stop()
