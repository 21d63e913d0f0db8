"""Image bytes → probabilities, without ever holding up the event loop for long.

Short work (a small tile's decoding) is done where it stands. Long work goes to the preparing
thread, photos and forms of many images to one of their own each, where none holds up what is
shorter; each behind a bounded queue: what does not fit is refused at once. Prediction is the
batcher's.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import ImageTooLargeError, UndecodableImageError, UnsupportedImageError
from cifar10.images import DecodeLimits, count_pixels, decode_image
from service.batcher import Batcher, Run, past_deadline
from service.models import LoadedModel, batch_sizes
from service.problems import Kind, Problem, try_later
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.upload import extract_image, extract_images

T = TypeVar("T")

INLINE: Final = DecodeLimits(16 * 1024, 64 * 64, 64 * 64)
"""What is decoded on the event loop: about half a millisecond at most. The pixels are bounded
too, because a few bytes of PNG can unpack to a large picture."""

PHOTO_BYTES: Final = 256 * 1024
"""From here on an image is a photo: tens of milliseconds of decoding, for which others need not
wait. In a photo's thread nearly all of the time is the decoder's, which leaves Python alone."""

PHOTO_PIXELS: Final = 1_000_000
"""Likewise: a few kilobytes of PNG may be millions of pixels."""

PHOTO_NICENESS: Final = 10
"""The photos' thread gives way to the event loop, where both want one core (Linux only)."""

MAX_PREPARING: Final = 32
"""Requests that wait for one of the threads or are in it. Each holds its body, which may be as
large as is accepted, so this and not the queue of images bounds the memory that they take."""


class BoundedThread:
    """One thread, and at most ``bound`` calls waiting for it or running in it.

    Args:
        name: of the thread.
        bound: more calls than that are refused.
        niceness: how much less than the rest of the process it counts with the scheduler.
    """

    def __init__(self, name: str, bound: int, niceness: int = 0) -> None:
        self._bound = bound
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=_give_way, initargs=(niceness,)
        )
        self._places = BoundedSemaphore(bound)

    async def run(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` in the thread. What has not started by the deadline never does.

        Raises:
            Problem: 503, there is no place in the queue; 504, the deadline has passed.
        """
        if not self._places.acquire(blocking=False):
            detail = f"{self._bound} requests are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        future = self._executor.submit(function, *arguments)
        # Not when the caller stops waiting: a call that has started still fills its place.
        future.add_done_callback(self._leave)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise past_deadline() from None

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()

    def stop(self) -> None:
        """Drop what has not started, and let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _give_way(niceness: int) -> None:
    """Linux has a niceness for each thread, and names a thread as it does a process."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, now + niceness)


class Inference:
    """Decoding and prediction for one worker process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._limits = settings.decode_limits
        self._metrics = metrics
        self._preparing = BoundedThread("prepare", MAX_PREPARING)
        self._photos = BoundedThread("photos", MAX_PREPARING, PHOTO_NICENESS)
        self._forms = BoundedThread("forms", MAX_PREPARING)
        self._predicting = ThreadPoolExecutor(1, thread_name_prefix="predict")
        # A model that another has replaced goes, with its queue, when its last request is answered.
        self._batchers: WeakKeyDictionary[LoadedModel, Batcher] = WeakKeyDictionary()

    async def decode(self, body: bytes, content_type: bytes, deadline: float) -> NDArray[np.uint8]:
        """The tile in a request's body: uint8 (1, 32, 32, 3), RGB.

        Raises:
            Problem: 400 a bad form, 415 not an image, 422 undecodable or too many pixels,
                503 too many large images wait already, 504 the deadline has passed.
        """
        if len(body) <= INLINE.max_bytes:
            try:
                return self._decode(body, content_type, INLINE)
            except Problem as problem:
                if problem.kind is not Kind.TOO_MANY_PIXELS:
                    raise
        if len(body) >= PHOTO_BYTES:
            return await self._photos.run(deadline, self._decode, body, content_type, self._limits)
        found = await self.prepare(deadline, self._decode_unless_photo, body, content_type)
        if isinstance(found, bytes):
            return await self._photos.run(deadline, self._tile, found, self._limits)
        return found

    async def decode_form(
        self, body: bytes, content_type: bytes, deadline: float
    ) -> list[NDArray[np.uint8] | Problem]:
        """Every image of a form, in order: its tile, uint8 (1, 32, 32, 3), or why there is none.

        Raises:
            Problem: 400 a bad form, 413 too many images, 503 and 504 as :meth:`decode`.
        """
        return await self._forms.run(
            deadline, self._decode_form, body, content_type, deadline - _now()
        )

    async def prepare(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)``, which reads what a client sent, off the event loop.

        Raises:
            Problem: what ``function`` raises; 503 and 504 as :meth:`decode`.
        """
        return await self._preparing.run(deadline, function, *arguments)

    async def predict(
        self,
        model: LoadedModel,
        images: NDArray[np.uint8],
        deadline: float,
        told: Run | None = None,
    ) -> NDArray[np.float32]:
        """Class probabilities: uint8 (N, 32, 32, 3) → float32 (N, 10), rows summing to 1.

        ``told``, where it is given, is filled with what is told of the model's run.

        Raises:
            Problem: 503, the queue is full; 504, the deadline has passed.
        """
        batcher = self._batchers.get(model)
        if batcher is None:
            batcher = self._batchers[model] = self._batcher_of(model)
        return await batcher.predict(images, deadline, told)

    def warm_up_thread(self, model: LoadedModel) -> None:
        """Let the thread that will run ``model`` do so before a request needs it: CUDA's libraries
        keep handles for each thread, made at its first run. Not for that thread or the event loop.
        """
        if model.predictor.device == "cuda":
            sizes = batch_sizes(self._settings.max_batch)
            self._predicting.submit(model.predictor.warm_up, sizes).result()

    def _batcher_of(self, model: LoadedModel) -> Batcher:
        # The event loop has better things to do than to wait for a GPU, however fast it is.
        on_gpu = model.predictor.device == "cuda"
        return Batcher(
            model.predictor.predict,
            seconds_per_image=inf if on_gpu else model.seconds_per_image,
            thread=self._predicting,
            max_batch=self._settings.max_batch,
            bound=self._settings.queue_bound,
            metrics=self._metrics.of_model(model.card.name),
        )

    def _decode(self, body: bytes, content_type: bytes, limits: DecodeLimits) -> NDArray[np.uint8]:
        return self._tile(extract_image(body, content_type), limits)

    def _decode_unless_photo(self, body: bytes, content_type: bytes) -> NDArray[np.uint8] | bytes:
        """The tile; or the image as it came, where decoding it is the photos' thread's."""
        image = extract_image(body, content_type)
        if count_pixels(image) >= PHOTO_PIXELS:
            return image
        return self._tile(image, self._limits)

    def _decode_form(
        self, body: bytes, content_type: bytes, seconds: float
    ) -> list[NDArray[np.uint8] | Problem]:
        until = perf_counter() + seconds
        tiles: list[NDArray[np.uint8] | Problem] = []
        for image in extract_images(body, content_type, self._settings.max_images):
            if perf_counter() > until:  # nobody waits any more
                raise past_deadline()
            try:
                tiles.append(self._tile(image, self._limits))
            except Problem as problem:
                tiles.append(problem)
        return tiles

    def _tile(self, image: bytes, limits: DecodeLimits) -> NDArray[np.uint8]:
        started = perf_counter()
        try:
            tile = decode_image(image, limits)
        except UnsupportedImageError as error:
            raise Problem(Kind.UNSUPPORTED, str(error)) from error
        except ImageTooLargeError as error:
            raise Problem(Kind.TOO_MANY_PIXELS, str(error)) from error
        except UndecodableImageError as error:
            raise Problem(Kind.UNDECODABLE, str(error)) from error
        self._metrics.decode_seconds.observe(perf_counter() - started)
        self._metrics.image_bytes.inc(len(image))
        return tile[np.newaxis]

    def stop(self) -> None:
        """End all threads; what has not started is dropped."""
        self._preparing.stop()
        self._photos.stop()
        self._forms.stop()
        self._predicting.shutdown(wait=False, cancel_futures=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
