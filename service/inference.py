"""Decode images and run models without blocking the event loop for long.

Small tiles are decoded on the event loop. All other images go to the preparing thread first, which
estimates the cost of decoding each image and decodes the cheap ones. Photos go on to a second
thread and forms of many images to a third, so that neither delays shorter work. Each thread has a
bounded queue that is fair between clients (:mod:`service.fair_thread`); a request that does not fit
is refused at once. The batcher runs the predictions (:mod:`service.batcher`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from cifar10.image_layout import TILE, ImageLayout
from cifar10.images import decode_layout, decode_plain_tile, inspect_image
from service.batcher import Batcher, Run
from service.exchange import Request
from service.fair_thread import FairThread
from service.models import LoadedModel, batch_sizes
from service.problems import Kind, Problem, try_later
from service.rate_limit import client_of
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.tensor_input import InferenceRequest, refusal_of_element
from service.upload import extract_image, extract_images

T = TypeVar("T")

INLINE_BYTES: Final = 16 * 1024
INLINE_PIXELS: Final = 64 * 64
INLINE_SECONDS: Final = 0.0005
"""Limits of images decoded on the event loop; decoding takes about half a millisecond at most.
Pixels and estimated time are limited too, because a few bytes of PNG can unpack to a large
picture."""

PHOTO_SECONDS: Final = 0.005
"""Decoding time above which an image counts as a photo. The photo thread spends nearly all its time
in the decoder, which releases Python's lock."""

FORM_TURN_SECONDS: Final = 0.05
"""Time after which a form of many images yields to the forms of other clients."""

NICENESS: Final = 10
"""Niceness of the photo and form threads, so that the event loop goes first when they compete for
one core (Linux only)."""

MAX_PREPARING: Final = 32
"""Maximum number of requests waiting for or running in one thread. Each holds its body, which may
have the largest size accepted, so this limit, not the queue of images, bounds their memory."""

_READING_SECONDS_PER_BYTE: Final = 20e-9
"""Upper bound of the time to extract the images of a body, per byte."""

_Outcome = NDArray[np.uint8] | Problem


class Caller(Protocol):
    """What the threads and the batcher need to know of a request, over HTTP or gRPC."""

    @property
    def deadline(self) -> float:
        """Time on the event loop's clock by which the request must be answered."""

    @property
    def client(self) -> str:
        """The client's address; empty if unknown."""


class Inference:
    """Decoding and prediction for one worker process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._limits = settings.decode_limits
        self._metrics = metrics
        # A queue longer than the deadline would only produce 504s.
        most_seconds = settings.deadline_seconds
        self._preparing = FairThread("prepare", MAX_PREPARING, most_seconds)
        self._photos = FairThread("photos", MAX_PREPARING, most_seconds, NICENESS)
        self._forms = FairThread("forms", MAX_PREPARING, niceness=NICENESS)
        self._open_forms = 0
        self._predicting = ThreadPoolExecutor(1, thread_name_prefix="predict")
        # A replaced model is freed, with its queue, once its last request is answered.
        self._batchers: WeakKeyDictionary[LoadedModel, Batcher] = WeakKeyDictionary()

    async def decode(self, request: Request, body: bytes) -> NDArray[np.uint8]:
        """Decode the image in a request's body: uint8 (1, 32, 32, 3), RGB.

        Raises:
            Problem: 400 for a bad form, 415 for content that is not an image, 422 for an image that
                is undecodable or too costly, 503 when too many large images are waiting already,
                504 when the deadline has passed.
        """
        return await self._decode_body(request, body, request.headers.get(b"content-type", b""))

    async def decode_encoded(self, caller: Caller, images: tuple[bytes, ...]) -> NDArray[np.uint8]:
        """Decode the images of a tensor: uint8 (N, 32, 32, 3), RGB.

        Raises:
            Problem: that of the first image that cannot be decoded; others as :meth:`decode`.
        """
        if len(images) == 1:
            return await self._decode_body(caller, images[0], b"")
        with self._open_form():
            outcomes = await self._decode_in_turns(caller, images, is_admitted=False)
        tiles = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Problem):
                raise refusal_of_element(outcome, index, len(images))
            tiles.append(outcome)
        return np.concatenate(tiles)

    async def _decode_body(
        self, caller: Caller, body: bytes, content_type: bytes
    ) -> NDArray[np.uint8]:
        if len(body) <= INLINE_BYTES:
            image = extract_image(body, content_type)
            found = self._tile_within(image, INLINE_SECONDS, INLINE_PIXELS)
            if isinstance(found, np.ndarray):
                return found
        else:
            seconds = PHOTO_SECONDS + len(body) * _READING_SECONDS_PER_BYTE
            found = await self.prepare(caller, seconds, self._decode_short, body, content_type)
            if isinstance(found, np.ndarray):
                return found
        thread = self._photos if found.seconds(TILE) > PHOTO_SECONDS else self._preparing
        client = client_of(caller.client)
        return await thread.run(caller.deadline, client, found.seconds(TILE), self._decode, found)

    async def decode_form(self, request: Request, body: bytes) -> list[_Outcome]:
        """Decode every image of a form, in order.

        Returns:
            For each image its tile, uint8 (1, 32, 32, 3), or the problem that prevented decoding.

        Raises:
            Problem: 400 for a bad form, 413 for too many images, 503 and 504 as :meth:`decode`.
        """
        content_type = request.headers.get(b"content-type", b"")
        with self._open_form():
            images = await self._forms.run(
                request.deadline,
                client_of(request.client),
                len(body) * _READING_SECONDS_PER_BYTE,
                self._extract,
                body,
                content_type,
            )
            return await self._decode_in_turns(request, images, is_admitted=True)

    @contextmanager
    def _open_form(self) -> Iterator[None]:
        """Count a request of many images while it is decoded.

        Raises:
            Problem: 503 if too many are being decoded already.
        """
        if self._open_forms >= MAX_PREPARING:
            detail = f"{self._open_forms} forms are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._open_forms += 1
        try:
            yield
        finally:
            self._open_forms -= 1

    async def _decode_in_turns(
        self, caller: Caller, images: Sequence[bytes], *, is_admitted: bool
    ) -> list[_Outcome]:
        """Decode images in the forms' thread, which other clients use in between."""
        outcomes: list[_Outcome] = []
        while len(outcomes) < len(images):
            outcomes += await self._forms.run(
                caller.deadline,
                client_of(caller.client),
                FORM_TURN_SECONDS,
                self._decode_turn,
                images[len(outcomes) :],
                is_continued=is_admitted or bool(outcomes),
            )
        return outcomes

    async def prepare(
        self, caller: Caller, seconds: float, function: Callable[..., T], *arguments: Any
    ) -> T:
        """Return ``function(*arguments)``, called in the preparing thread. For parsing client data
        off the event loop.

        Args:
            caller: the request, for its deadline and its client.
            seconds: estimated duration of the call.
            function: the function to call.
            *arguments: arguments of the call.

        Raises:
            Problem: any that ``function`` raises; 503 and 504 as :meth:`decode`.
        """
        client = client_of(caller.client)
        return await self._preparing.run(caller.deadline, client, seconds, function, *arguments)

    async def answer(
        self, model: LoadedModel, wanted: InferenceRequest, caller: Caller
    ) -> NDArray[np.float32]:
        """Return the class probabilities of an inference request's images: float32 (N, L).

        Raises:
            Problem: as :meth:`decode_encoded` and :meth:`predict`.
        """
        images = wanted.images
        if isinstance(images, tuple):
            images = await self.decode_encoded(caller, images)
        return await self.predict(model, images, caller.deadline)

    async def predict(
        self,
        model: LoadedModel,
        images: NDArray[np.uint8],
        deadline: float,
        timing: Run | None = None,
    ) -> NDArray[np.float32]:
        """Return class probabilities: uint8 (N, 32, 32, 3) → float32 (N, 10), rows summing to 1.

        ``timing``, if given, is filled with the timing of the model's run.

        Raises:
            Problem: 503 when the queue is full, 504 when the deadline has passed.
        """
        batcher = self._batchers.get(model)
        if batcher is None:
            batcher = self._batchers[model] = self._batcher_of(model)
        return await batcher.predict(images, deadline, timing)

    def stuck(self) -> str | None:
        """Return a message naming a thread whose current call has run for longer than any request
        may take; None if there is none."""
        for name, thread in (
            ("images", self._preparing),
            ("photos", self._photos),
            ("forms", self._forms),
        ):
            seconds = thread.busy_seconds()
            if seconds > self._settings.deadline_seconds:
                return f"the {name} decoder has been busy with a request for {seconds:.0f} seconds"
        return None

    def warm_up_thread(self, model: LoadedModel) -> None:
        """Run ``model`` once in the thread that will serve it. CUDA's libraries keep handles per
        thread and create them at a thread's first run. Do not call this from that thread or from
        the event loop: it waits."""
        if model.predictor.device == "cuda":
            sizes = batch_sizes(self._settings.max_batch)
            self._predicting.submit(model.predictor.warm_up, sizes).result()

    def _batcher_of(self, model: LoadedModel) -> Batcher:
        # A GPU's run always leaves the event loop, which would only wait for it.
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

    def _decode_turn(self, images: Sequence[bytes]) -> list[_Outcome]:
        """Decode the first of ``images``: at least one, then more until the turn's time is up."""
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
            # A new exception: the old one's traceback refers to frames that hold the images.
            return Problem(problem.kind, problem.detail)

    def _tile_within(
        self, image: bytes, seconds: float, pixels: int
    ) -> NDArray[np.uint8] | ImageLayout:
        """Return the decoded tile, or the image's layout if decoding it would exceed ``seconds`` or
        it has more than ``pixels``."""
        started = perf_counter()
        try:
            tile = decode_plain_tile(image, self._limits)
            if tile is None:
                layout = inspect_image(image, self._limits)
                if layout.seconds(TILE) > seconds or layout.pixels > pixels:
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
        """Stop all threads and drop calls that have not started."""
        self._preparing.stop()
        self._photos.stop()
        self._forms.stop()
        self._predicting.shutdown(wait=False, cancel_futures=True)


def _refusal(error: ImageError | MemoryError) -> Problem:
    if isinstance(error, MemoryError):
        detail = "not enough memory to decode the image; try again in a second"
        return try_later(Kind.QUEUE_FULL, detail)
    if isinstance(error, UnsupportedImageError):
        return Problem(Kind.UNSUPPORTED, str(error))
    kind = Kind.TOO_MANY_PIXELS if isinstance(error, ImageTooLargeError) else Kind.UNDECODABLE
    return Problem(kind, str(error))
