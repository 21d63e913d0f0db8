"""Handlers of ``/classify`` and ``/classify/batch``: turn a request into its predictions."""

import io
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar10.contract import ImageShape
from cifar10.released import AUTO
from service.batcher import Probabilities, Run
from service.exchange import Answer, End, Request, delivering, json_answer, query_parameters
from service.explanation import PNG_SECONDS_PER_PIXEL, StageClock, explanation, tile_png
from service.inference import INLINE_SECONDS, Inference, Outcome
from service.models import AskedModel, AutoModel, LoadedModel, ModelSet
from service.prediction import identity, prediction
from service.problems import Problem, malformed, too_many_images
from service.settings import Settings
from service.upload import BodyReader

DEFAULT_TOP_K: Final = 3

NPY: Final = b"application/x-npy"
MAX_NPY_HEADER_BYTES: Final = 512
"""Largest ``.npy`` header accepted. NumPy's own headers have 118 bytes for such an array. A header
is a Python literal; it is parsed and not executed."""


class Wanted(NamedTuple):
    """Parameters of a request's query."""

    model: AskedModel
    top_k: int = DEFAULT_TOP_K
    explain: bool = False


class Classifier:
    """Handles both routes."""

    def __init__(
        self, settings: Settings, models: ModelSet, bodies: BodyReader, inference: Inference
    ) -> None:
        self._settings = settings
        self._models = models
        self._bodies = bodies
        self._inference = inference

    async def one(self, request: Request) -> Answer:
        """Answer ``POST /classify``: an image → its class."""
        wanted = self._wanted(request.query, ("model", "top_k", "explain"))
        if wanted.explain:
            return await self._explained(request, wanted)
        body = await self._bodies.read(request)
        tile, model = await self._inference.decode(request, body, wanted.model)
        probabilities = await self._inference.predict(model, tile, request.deadline)
        return _answer(model, probabilities, wanted.top_k)

    def begin_one(self, request: Request, body: bytes, end: End) -> bool:
        """Begin to answer ``POST /classify`` like :meth:`one`, but without a task. Return False if
        the image is too large for that or the model too slow."""
        if not self._bodies.is_plain(request, body):
            return False
        wanted = self._wanted(request.query, ("model", "top_k", "explain"))
        if wanted.explain:
            return False

        def write(model: LoadedModel, probabilities: Probabilities) -> Answer:
            return _answer(model, probabilities, wanted.top_k)

        return self._inference.begin(request, body, wanted.model, delivering(end, write))

    async def _explained(self, request: Request, wanted: Wanted) -> Answer:
        """Answer ``POST /classify?explain=true``: also time each stage. Other requests skip
        this."""
        clock, run = StageClock(), Run()
        body = await self._bodies.read(request)
        clock.lap("body")
        tile, model = await self._inference.decode(request, body, wanted.model)
        clock.lap("decode")
        probabilities = await self._inference.predict(model, tile, request.deadline, run)
        png = await self._png(request, tile)
        explained = {"explanation": explanation(png, clock, run)}
        predicted = prediction(model, probabilities[0].tolist(), wanted.top_k)
        return json_answer({**predicted, **identity(model), **explained})

    async def _png(self, request: Request, tile: NDArray[np.uint8]) -> str:
        """Return the model's input as a PNG. A large one would block the event loop."""
        seconds = tile.size / 3 * PNG_SECONDS_PER_PIXEL
        if seconds < INLINE_SECONDS:
            return tile_png(tile)
        return await self._inference.prepare(request, seconds, tile_png, tile)

    async def many(self, request: Request) -> Answer:
        """Answer ``POST /classify/batch``: images → their classes in order, an error for each bad
        image."""
        wanted = self._wanted(request.query, ("model", "top_k"))
        asked = wanted.model
        body = await self._bodies.read(request)
        content_type = request.headers.get(b"content-type", b"")
        outcomes: list[Outcome]
        if content_type.partition(b";")[0].strip().lower() == NPY:
            shapes = [model.card.image_shape for model in asked.members]
            images = read_npy(body, self._settings.max_images, shapes)
            model = asked.members[shapes.index(images.shape[1:])]
            rows = await self._inference.predict(model, images, request.deadline)
            outcomes = [(row, model) for row in rows.tolist()]
        else:
            outcomes = await self._inference.classify_form(request, body, asked)
        is_mixed = isinstance(asked, AutoModel)
        entries = [_entry(outcome, wanted.top_k, is_mixed) for outcome in outcomes]
        return json_answer({"predictions": entries, **_answerers(asked)})

    def _wanted(self, query: bytes, accepted: tuple[str, ...]) -> Wanted:
        if not query:
            return Wanted(self._models.asked(None))
        found = query_parameters(query, accepted)
        explain = found.get("explain", "false")
        if explain not in ("true", "false"):
            detail = f"explain is {explain[:32]!r}; expected true or false"
            raise malformed(detail)
        model = self._models.asked(found.get("model"))
        return Wanted(model, _top_k(found.get("top_k"), model), explain == "true")


def _answer(model: LoadedModel, probabilities: Probabilities, top_k: int) -> Answer:
    predicted = prediction(model, probabilities[0].tolist(), top_k)
    return json_answer({**predicted, **identity(model)})


def read_npy(body: bytes, most: int, shapes: Sequence[ImageShape]) -> NDArray[np.uint8]:
    """Return the images in an ``.npy`` file: uint8 (N, *shape), RGB, 1 ≤ N ≤ ``most``, read-only,
    each of one of ``shapes``.

    Only the header is parsed; the array is a view of the rest of ``body``. So nothing is unpickled,
    and no memory is allocated for images that the header announces but the body lacks.

    Raises:
        Problem: 400 for any other shape, type, order or size; 413 for too many images.
    """
    stream = io.BytesIO(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers written by Python 2
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read(stream, max_header_size=MAX_NPY_HEADER_BYTES)
    except Exception as error:  # numpy raises many kinds on a hostile header
        detail = "the body is not an .npy file of version 1 or 2; make it with numpy.save"
        raise malformed(detail) from error
    is_fit = len(shape) == 4 and shape[1:] in shapes
    is_fit &= all(type(size) is int for size in shape)  # NumPy accepts True as a size too
    if dtype != np.uint8 or fortran_order or not is_fit:
        order = ", Fortran order" if fortran_order else ""
        expected = " or ".join(f"(N, {', '.join(map(str, one))})" for one in shapes)
        detail = f"expected uint8 {expected} in C order; got {dtype} {shape}{order}"[:256]
        raise malformed(detail)
    count = shape[0]
    if count > most:
        raise too_many_images(most)
    each, found = math.prod(shape[1:]), len(body) - stream.tell()
    if count < 1 or found != count * each:
        detail = f"the header says {count} images of {each} bytes; {found} bytes follow it"
        raise malformed(detail)
    return np.frombuffer(body, np.uint8, offset=stream.tell()).reshape(shape)


def _top_k(text: str | None, model: AskedModel) -> int:
    if text is None:
        return DEFAULT_TOP_K
    top_k = 0
    if text.isascii() and len(text) <= 4:
        with suppress(ValueError):
            top_k = int(text)
    if not 1 <= top_k <= model.class_count:
        detail = f"top_k is {text[:32]!r}; expected a number from 1 to {model.class_count}"
        raise malformed(detail)
    return top_k


def _entry(outcome: Outcome, top_k: int, is_mixed: bool) -> dict[str, Any]:
    if isinstance(outcome, Problem):
        return {"error": outcome.document()}
    probabilities, model = outcome
    entry = prediction(model, probabilities, top_k)
    return {**entry, "model": model.card.name} if is_mixed else entry


def _answerers(asked: AskedModel) -> dict[str, Any]:
    """Return who answered a batch. For the virtual model both are named, and each prediction
    says which one it is from."""
    if not isinstance(asked, AutoModel):
        return identity(asked)
    return {"model": AUTO, "models": [identity(model) for model in asked.members]}
