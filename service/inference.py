"""Image bytes → probabilities, without ever holding up the event loop for long.

Short work (a small tile's decoding) is done where it stands. All else goes first to the preparing
thread, which finds out what an image would cost before it is decoded and decodes what is cheap;
photos and forms of many images go on to one thread each, where neither holds up what is shorter.
Each is behind a queue that is bounded and fair between clients (:mod:`service.fair_thread`): what
does not fit is refused at once. Prediction is the batcher's.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import perf_counter
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from cifar10.image_layout import ImageLayout
from cifar10.images import decode_layout, decode_plain_tile, inspect_image
from service.batcher import Batcher, Run
from service.exchange import Request
from service.fair_thread import FairThread
from service.models import LoadedModel, batch_sizes
from service.problems import Kind, Problem, try_later
from service.rate_limit import client_of
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.upload import extract_image, extract_images

T = TypeVar("T")

INLINE_BYTES: Final = 16 * 1024
INLINE_PIXELS: Final = 64 * 64
INLINE_SECONDS: Final = 0.0005
"""What is decoded on the event loop: about half a millisecond at most. Pixels and scans count too,
because a few bytes of PNG can unpack to a large picture."""

PHOTO_SECONDS: Final = 0.005
"""An image that takes longer than this is a photo. In a photo's thread nearly all of the time is
the decoder's, which leaves Python alone."""

FORM_TURN_SECONDS: Final = 0.05
"""After so long a form of many images lets the forms of other clients take their turn."""

NICENESS: Final = 10
"""The threads of photos and forms give way to the event loop, where both want one core (Linux
only)."""

MAX_PREPARING: Final = 32
"""Requests that wait for one of the threads or are in it. Each holds its body, which may be as
large as is accepted, so this and not the queue of images bounds the memory that they take."""

_READING_SECONDS_PER_BYTE: Final = 20e-9
"""What taking a body apart costs at most."""

_Outcome = NDArray[np.uint8] | Problem


class Inference:
    """Decoding and prediction for one worker process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._limits = settings.decode_limits
        self._metrics = metrics
        # More than fits into the deadline would wait for a 504.
        most_seconds = settings.deadline_seconds
        self._preparing = FairThread("prepare", MAX_PREPARING, most_seconds)
        self._photos = FairThread("photos", MAX_PREPARING, most_seconds, NICENESS)
        self._forms = FairThread("forms", MAX_PREPARING, niceness=NICENESS)
        self._open_forms = 0
        self._predicting = ThreadPoolExecutor(1, thread_name_prefix="predict")
        # A model that another has replaced goes, with its queue, when its last request is answered.
        self._batchers: WeakKeyDictionary[LoadedModel, Batcher] = WeakKeyDictionary()

    async def decode(self, request: Request, body: bytes) -> NDArray[np.uint8]:
        """Decode the image in a request's body: uint8 (1, 32, 32, 3), RGB.

        Raises:
            Problem: 400 a bad form, 415 not an image, 422 undecodable or too costly,
                503 too many large images wait already, 504 the deadline has passed.
        """
        content_type = request.headers.get(b"content-type", b"")
        if len(body) <= INLINE_BYTES:
            image = extract_image(body, content_type)
            found = self._tile_within(image, INLINE_SECONDS, INLINE_PIXELS)
            if isinstance(found, np.ndarray):
                return found
        else:
            seconds = PHOTO_SECONDS + len(body) * _READING_SECONDS_PER_BYTE
            found = await self.prepare(request, seconds, self._decode_short, body, content_type)
            if isinstance(found, np.ndarray):
                return found
        thread = self._photos if found.seconds > PHOTO_SECONDS else self._preparing
        client = client_of(request.client)
        return await thread.run(request.deadline, client, found.seconds, self._decode, found)

    async def decode_form(self, request: Request, body: bytes) -> list[_Outcome]:
        """Decode every image of a form, in order: its tile, uint8 (1, 32, 32, 3), or why there is
        none.

        Raises:
            Problem: 400 a bad form, 413 too many images, 503 and 504 as :meth:`decode`.
        """
        if self._open_forms >= MAX_PREPARING:
            detail = f"{self._open_forms} forms are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._open_forms += 1
        deadline, client = request.deadline, client_of(request.client)
        content_type = request.headers.get(b"content-type", b"")
        try:
            seconds = len(body) * _READING_SECONDS_PER_BYTE
            images = await self._forms.run(
                deadline, client, seconds, self._extract, body, content_type
            )
            outcomes: list[_Outcome] = []
            while len(outcomes) < len(images):
                outcomes += await self._forms.run(
                    deadline,
                    client,
                    FORM_TURN_SECONDS,
                    self._decode_turn,
                    images[len(outcomes) :],
                    is_continued=True,
                )
            return outcomes
        finally:
            self._open_forms -= 1

    async def prepare(
        self, request: Request, seconds: float, function: Callable[..., T], *arguments: Any
    ) -> T:
        """Return ``function(*arguments)``, which reads what a client sent, off the event loop.

        Args:
            request: whose deadline and client count.
            seconds: about what it takes.
            function: called in the preparing thread.
            *arguments: of the call.

        Raises:
            Problem: what ``function`` raises; 503 and 504 as :meth:`decode`.
        """
        client = client_of(request.client)
        return await self._preparing.run(request.deadline, client, seconds, function, *arguments)

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

    def stuck(self) -> str | None:
        """Say which thread has been at one call for longer than any request may take; None where
        all move on."""
        for name, thread in (
            ("images", self._preparing),
            ("photos", self._photos),
            ("forms", self._forms),
        ):
            seconds = thread.busy_seconds()
            if seconds > self._settings.deadline_seconds:
                return f"the decoder of {name} has been at one request for {seconds:.0f} seconds"
        return None

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

    def _decode_short(self, body: bytes, content_type: bytes) -> NDArray[np.uint8] | ImageLayout:
        image = extract_image(body, content_type)
        return self._tile_within(image, PHOTO_SECONDS, self._limits.max_pixels)

    def _extract(self, body: bytes, content_type: bytes) -> list[bytes]:
        return extract_images(body, content_type, self._settings.max_images)

    def _decode_turn(self, images: list[bytes]) -> list[_Outcome]:
        """Decode the first few images: at least one, and then as many as the turn has time for."""
        until = perf_counter() + FORM_TURN_SECONDS
        outcomes: list[_Outcome] = []
        for image in images:
            outcomes.append(self._tile_or_refusal(image))
            if perf_counter() > until:
                break
        return outcomes

    def _tile_or_refusal(self, image: bytes) -> _Outcome:
        try:
            found = self._tile_within(image, inf, self._limits.max_pixels)
            return found if isinstance(found, np.ndarray) else self._decode(found)
        except Problem as problem:
            if problem.kind is Kind.QUEUE_FULL:
                raise
            # A new one, without a traceback: that one leads to the frames that hold the images.
            return Problem(problem.kind, problem.detail)

    def _tile_within(
        self, image: bytes, seconds: float, pixels: int
    ) -> NDArray[np.uint8] | ImageLayout:
        """The tile; or, where decoding it takes longer or it has more pixels, its layout."""
        started = perf_counter()
        try:
            tile = decode_plain_tile(image, self._limits)
            if tile is None:
                layout = inspect_image(image, self._limits)
                if layout.seconds > seconds or layout.pixels > pixels:
                    return layout
                tile = decode_layout(layout)
        except (ImageError, MemoryError) as error:
            raise _refusal(error) from error
        return self._counted(tile, len(image), started)

    def _decode(self, layout: ImageLayout) -> NDArray[np.uint8]:
        started = perf_counter()
        try:
            tile = decode_layout(layout)
        except (ImageError, MemoryError) as error:
            raise _refusal(error) from error
        return self._counted(tile, len(layout.data), started)

    def _counted(self, tile: NDArray[np.uint8], size: int, started: float) -> NDArray[np.uint8]:
        self._metrics.decode_seconds.observe(perf_counter() - started)
        self._metrics.image_bytes.inc(size)
        return tile[np.newaxis]

    def stop(self) -> None:
        """End all threads; what has not started is dropped."""
        self._preparing.stop()
        self._photos.stop()
        self._forms.stop()
        self._predicting.shutdown(wait=False, cancel_futures=True)


def _refusal(error: ImageError | MemoryError) -> Problem:
    if isinstance(error, MemoryError):
        detail = "there is no memory left to decode the image; try again in a second"
        return try_later(Kind.QUEUE_FULL, detail)
    if isinstance(error, UnsupportedImageError):
        return Problem(Kind.UNSUPPORTED, str(error))
    kind = Kind.TOO_MANY_PIXELS if isinstance(error, ImageTooLargeError) else Kind.UNDECODABLE
    return Problem(kind, str(error))
