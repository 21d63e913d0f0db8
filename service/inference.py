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
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from service.batcher import Batcher, Run
from service.batcher import Outcome as RunOutcome
from service.decoding import Decoded, Decoder, Found
from service.exchange import Caller, Request
from service.fair_thread import FairThread
from service.models import AskedModel, LoadedModel, batch_sizes
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

MAX_QUEUED_PIXELS: Final = 32 * 1024 * 1024
"""Most pixels of one model's images waiting or running: 96 MB. Models above 181 × 181 have a lower
bound on images than the settings say."""

TURN_PIXELS: Final = 2 * 1024 * 1024
"""Pixels of decoded images after which a form's turn ends, so that a form never holds more than
6 MB of them."""

Deliver = Callable[[LoadedModel, RunOutcome], None]
"""Receives the model that answers and the outcome of its run."""

Outcome = tuple[list[float], LoadedModel] | Problem
"""An image's probabilities and the model that gave them, or why there are none."""


class Inference:
    """Decoding and prediction for one worker process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decoder = Decoder(settings.decode_limits, metrics)
        # A queue longer than the deadline would only produce 504s.
        most_seconds = settings.deadline_seconds
        self._preparing = FairThread("prepare", MAX_PREPARING, most_seconds)
        self._photos = FairThread("photos", MAX_PREPARING, most_seconds, NICENESS)
        self._forms = FairThread("forms", MAX_PREPARING, niceness=NICENESS)
        self._open_forms = 0
        self._predicting = ThreadPoolExecutor(1, thread_name_prefix="predict")
        # A replaced model is freed, with its queue, once its last request is answered.
        self._batchers: WeakKeyDictionary[LoadedModel, Batcher] = WeakKeyDictionary()

    async def decode(self, request: Request, body: bytes, asked: AskedModel) -> Decoded:
        """Decode the image in a request's body for the requested model.

        Raises:
            Problem: 400 for a bad form, 415 for content that is not an image, 422 for an image that
                is undecodable or too costly, 503 when too many large images are waiting already,
                504 when the deadline has passed.
        """
        content_type = request.headers.get(b"content-type", b"")
        return await self._decode_body(request, body, content_type, asked)

    async def _decode_body(
        self, caller: Caller, body: bytes, content_type: bytes, asked: AskedModel
    ) -> Decoded:
        if len(body) <= INLINE_BYTES:
            image = extract_image(body, content_type)
            found = self._decoder.timed(image, asked, INLINE_SECONDS, INLINE_PIXELS)
        else:
            seconds = PHOTO_SECONDS + len(body) * _READING_SECONDS_PER_BYTE
            found = await self.prepare(
                caller, seconds, self._decode_short, body, content_type, asked
            )
        layout, model = found
        if isinstance(layout, np.ndarray):
            return layout, model
        seconds = layout.seconds(model.target)
        thread = self._photos if seconds > PHOTO_SECONDS else self._preparing
        client = client_of(caller.client)
        return await thread.run(
            caller.deadline, client, seconds, self._decoder.finish, layout, model
        )

    def begin(
        self,
        request: Request,
        body: bytes,
        asked: AskedModel,
        deliver: Deliver,
    ) -> bool:
        """Decode the image in a request's body and submit it to its model, all on the event loop.

        Args:
            request: the request.
            body: its body.
            asked: the requested model.
            deliver: called with the outcome later.

        Returns:
            False if decoding the image or running the model takes a thread.

        Raises:
            Problem: as :meth:`decode`, and 503 when the queue is full.
        """
        if len(body) > INLINE_BYTES:
            return False
        image = extract_image(body, request.headers.get(b"content-type", b""))
        return self._begin_image(image, asked, request.deadline, deliver)

    def begin_answer(
        self,
        model: LoadedModel,
        wanted: InferenceRequest,
        deadline: float,
        deliver: Deliver,
    ) -> bool:
        """Submit the images of an inference request to ``model``, like :meth:`begin`. Return False
        if that takes a thread or several runs."""
        images = wanted.images
        if isinstance(images, tuple):
            if len(images) > 1 or len(images[0]) > INLINE_BYTES:
                return False
            return self._begin_image(images[0], model, deadline, deliver)
        batcher = self._batcher(model)
        if not batcher.takes_at_once(images):
            return False
        batcher.submit(images, deadline, partial(deliver, model))
        return True

    def _begin_image(
        self,
        image: bytes,
        asked: AskedModel,
        deadline: float,
        deliver: Deliver,
    ) -> bool:
        batcher = self._batcher(asked) if isinstance(asked, LoadedModel) else None
        if batcher is not None and not batcher.is_inline:
            return False
        started = perf_counter()
        found, model = self._decoder.within(image, asked, INLINE_SECONDS, INLINE_PIXELS)
        batcher = batcher or self._batcher(model)
        if not isinstance(found, np.ndarray) or not batcher.is_inline:
            return False
        self._metrics.decoded(len(image), perf_counter() - started)
        batcher.submit(found, deadline, partial(deliver, model))
        return True

    async def classify_form(
        self, request: Request, body: bytes, asked: AskedModel
    ) -> list[Outcome]:
        """Classify every image of a form, in order.

        Raises:
            Problem: 400 for a bad form, 413 for too many images, 503 and 504 as :meth:`decode` and
                :meth:`predict`.
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
            return await self._classify_in_turns(request, images, asked, is_admitted=True)

    @contextmanager
    def _open_form(self) -> Iterator[None]:
        """Count a request of many images while it is answered.

        Raises:
            Problem: 503 if too many are being answered already.
        """
        if self._open_forms >= MAX_PREPARING:
            detail = f"{self._open_forms} forms are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._open_forms += 1
        try:
            yield
        finally:
            self._open_forms -= 1

    async def _classify_in_turns(
        self, caller: Caller, images: Sequence[bytes], asked: AskedModel, *, is_admitted: bool
    ) -> list[Outcome]:
        """Decode images in the forms' thread, which other clients use in between, and run each
        turn's images before the next turn, so that few decoded images are held."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(images):
            decoded = await self._forms.run(
                caller.deadline,
                client_of(caller.client),
                FORM_TURN_SECONDS,
                self._decode_turn,
                images[len(outcomes) :],
                asked,
                is_continued=is_admitted or bool(outcomes),
            )
            outcomes += await self._predict_turn(decoded, caller.deadline)
        return outcomes

    async def _predict_turn(
        self, decoded: Sequence[Decoded | Problem], deadline: float
    ) -> list[Outcome]:
        images: dict[LoadedModel, list[NDArray[np.uint8]]] = {}
        for one in decoded:
            if not isinstance(one, Problem):
                images.setdefault(one[1], []).append(one[0])
        rows = {}
        for model, of_model in images.items():
            answers = await self.predict(model, np.concatenate(of_model), deadline)
            rows[model] = iter(answers.tolist())
        return [
            one if isinstance(one, Problem) else (next(rows[one[1]]), one[1]) for one in decoded
        ]

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
            Problem: that of the first image that cannot be decoded; others as :meth:`decode` and
                :meth:`predict`.
        """
        images = wanted.images
        if not isinstance(images, tuple):
            return await self.predict(model, images, caller.deadline)
        if len(images) == 1:
            tile, _ = await self._decode_body(caller, images[0], b"", model)
            return await self.predict(model, tile, caller.deadline)
        with self._open_form():
            outcomes = await self._classify_in_turns(caller, images, model, is_admitted=False)
        rows = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Problem):
                raise refusal_of_element(outcome, index, len(images))
            rows.append(outcome[0])
        return np.array(rows, np.float32)

    async def predict(
        self,
        model: LoadedModel,
        images: NDArray[np.uint8],
        deadline: float,
        timing: Run | None = None,
    ) -> NDArray[np.float32]:
        """Return class probabilities: uint8 (N, height, width, 3) → float32 (N, classes), rows
        summing to 1.

        ``timing``, if given, is filled with the timing of the model's run.

        Raises:
            Problem: 503 when the queue is full, 504 when the deadline has passed.
        """
        return await self._batcher(model).predict(images, deadline, timing)

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
            sizes = batch_sizes(model.max_batch)
            self._predicting.submit(model.predictor.warm_up, sizes).result()

    def _batcher(self, model: LoadedModel) -> Batcher:
        batcher = self._batchers.get(model)
        if batcher is not None:
            return batcher
        # A GPU's run always leaves the event loop, which would only wait for it.
        on_gpu = model.predictor.device == "cuda"
        pixels = model.target.width * model.target.height
        batcher = self._batchers[model] = Batcher(
            model.predictor.predict,
            seconds_per_image=inf if on_gpu else model.seconds_per_image,
            thread=self._predicting,
            max_batch=model.max_batch,
            bound=min(self._settings.queue_bound, MAX_QUEUED_PIXELS // pixels),
            metrics=self._metrics.of_model(model.card.name),
        )
        return batcher

    def _decode_short(self, body: bytes, content_type: bytes, asked: AskedModel) -> Found:
        image = extract_image(body, content_type)
        return self._decoder.timed(image, asked, PHOTO_SECONDS, self._decoder.max_pixels)

    def _extract(self, body: bytes, content_type: bytes) -> list[bytes]:
        return extract_images(body, content_type, self._settings.max_images)

    def _decode_turn(self, images: Sequence[bytes], asked: AskedModel) -> list[Decoded | Problem]:
        """Decode the first of ``images``: at least one, then more until the turn's time is up or
        its pixels are too many."""
        until, pixels = perf_counter() + FORM_TURN_SECONDS, 0
        outcomes: list[Decoded | Problem] = []
        for image in images:
            outcome = self._decoded_or_refusal(image, asked)
            outcomes.append(outcome)
            pixels += 0 if isinstance(outcome, Problem) else outcome[0].size // 3
            if perf_counter() > until or pixels >= TURN_PIXELS:
                break
        return outcomes

    def _decoded_or_refusal(self, image: bytes, asked: AskedModel) -> Decoded | Problem:
        try:
            found, model = self._decoder.timed(image, asked, inf, self._decoder.max_pixels)
            return (
                (found, model)
                if isinstance(found, np.ndarray)
                else self._decoder.finish(found, model)
            )
        except Problem as problem:
            if problem.kind in (Kind.QUEUE_FULL, Kind.NOT_READY):
                raise
            # A new exception: the old one's traceback refers to frames that hold the images.
            return Problem(problem.kind, problem.detail)

    def stop(self) -> None:
        """Stop all threads and drop calls that have not started."""
        self._preparing.stop()
        self._photos.stop()
        self._forms.stop()
        self._predicting.shutdown(wait=False, cancel_futures=True)
