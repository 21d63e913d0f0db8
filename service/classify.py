"""``/classify`` and ``/classify/batch``: from a request to its prediction."""

import io
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS
from service.batcher import Run
from service.exchange import Answer, Request, json_answer, query_parameters
from service.explanation import StageClock, explanation
from service.inference import Inference
from service.models import LoadedModel, ModelSet
from service.problems import Problem, malformed, too_many_images
from service.settings import Settings
from service.upload import BodyReader

DEFAULT_TOP_K: Final = 3

NPY: Final = b"application/x-npy"
MAX_NPY_HEADER_BYTES: Final = 512
"""numpy's own headers have 118 for such an array. They are Python literals, parsed and not run."""

IMAGE_BYTES: Final = math.prod(IMAGE_SHAPE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request's query asks for."""

    model: str | None = None
    """None: the default."""
    top_k: int = DEFAULT_TOP_K
    explain: bool = False


_DEFAULTS: Final = Wanted()


class Classifier:
    """Answers the two addresses."""

    def __init__(
        self, settings: Settings, models: ModelSet, bodies: BodyReader, inference: Inference
    ) -> None:
        self._settings = settings
        self._models = models
        self._bodies = bodies
        self._inference = inference

    async def one(self, request: Request) -> Answer:
        """``POST /classify``: an image → its class."""
        wanted = _wanted(request.query, ("model", "top_k", "explain"))
        model = self._models.get(wanted.model)
        if wanted.explain:
            return await self._explained(request, model, wanted.top_k)
        body = await self._bodies.read(request)
        tile = await self._inference.decode(request, body)
        probabilities = await self._inference.predict(model, tile, request.deadline)
        prediction = _prediction(probabilities[0].tolist(), wanted.top_k)
        return json_answer({**prediction, **_model(model)})

    async def _explained(self, request: Request, model: LoadedModel, top_k: int) -> Answer:
        """The same with a clock, which those who do not ask for it do not pay for."""
        clock, run = StageClock(), Run()
        body = await self._bodies.read(request)
        clock.lap("body")
        tile = await self._inference.decode(request, body)
        clock.lap("decode")
        probabilities = await self._inference.predict(model, tile, request.deadline, run)
        told = {"explanation": explanation(tile, clock, run)}
        prediction = _prediction(probabilities[0].tolist(), top_k)
        return json_answer({**prediction, **_model(model), **told})

    async def many(self, request: Request) -> Answer:
        """``POST /classify/batch``: images → their classes in order, an error for each bad one."""
        wanted = _wanted(request.query, ("model", "top_k"))
        model = self._models.get(wanted.model)
        body = await self._bodies.read(request)
        content_type = request.headers.get(b"content-type", b"")
        if content_type.partition(b";")[0].strip().lower() == NPY:
            images = read_npy(body, self._settings.max_images)
            rows = await self._inference.predict(model, images, request.deadline)
            entries = [_prediction(row, wanted.top_k) for row in rows.tolist()]
        else:
            tiles = await self._inference.decode_form(request, body)
            entries = await self._predict_good(model, tiles, wanted.top_k, request.deadline)
        return json_answer({"predictions": entries, **_model(model)})

    async def _predict_good(
        self,
        model: LoadedModel,
        tiles: list[NDArray[np.uint8] | Problem],
        top_k: int,
        deadline: float,
    ) -> list[dict[str, Any]]:
        good = [tile for tile in tiles if not isinstance(tile, Problem)]
        predictions: Any = iter(())
        if good:
            rows = await self._inference.predict(model, np.concatenate(good), deadline)
            predictions = iter(rows.tolist())
        return [
            {"error": tile.document()}
            if isinstance(tile, Problem)
            else _prediction(next(predictions), top_k)
            for tile in tiles
        ]


def read_npy(body: bytes, most: int) -> NDArray[np.uint8]:
    """The images in an ``.npy`` file: uint8 (N, 32, 32, 3), RGB, 1 ≤ N ≤ ``most``, not writable.

    Only the header is parsed; the pixels are the rest of ``body`` as it is, so that nothing is
    unpickled and nothing is allocated for a claim that the body does not fulfil.

    Raises:
        Problem: 400 for another shape, type, order or size than that, 413 for too many images.
    """
    stream = io.BytesIO(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header written by Python 2
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read(stream, max_header_size=MAX_NPY_HEADER_BYTES)
    except Exception as error:  # numpy raises many kinds on a hostile header
        detail = "the body is not an .npy file of version 1 or 2; make it with numpy.save"
        raise malformed(detail) from error
    is_fit = len(shape) == 4 and shape[1:] == IMAGE_SHAPE
    is_fit &= all(type(size) is int for size in shape)  # to numpy, True is a size too
    if dtype != np.uint8 or fortran_order or not is_fit:
        order = ", Fortran order" if fortran_order else ""
        detail = f"expected uint8 (N, 32, 32, 3) in C order; got {dtype} {shape}{order}"[:256]
        raise malformed(detail)
    count = shape[0]
    if count > most:
        raise too_many_images(most)
    pixels = len(body) - stream.tell()
    if count < 1 or pixels != count * IMAGE_BYTES:
        detail = f"the header says {count} images of {IMAGE_BYTES} bytes; {pixels} bytes follow it"
        raise malformed(detail)
    return np.frombuffer(body, np.uint8, offset=stream.tell()).reshape(shape)


def _wanted(query: bytes, accepted: tuple[str, ...]) -> Wanted:
    if not query:
        return _DEFAULTS
    found = query_parameters(query, accepted)
    explain = found.get("explain", "false")
    if explain not in ("true", "false"):
        detail = f"explain is {explain[:32]!r}; expected true or false"
        raise malformed(detail)
    return Wanted(found.get("model"), _top_k(found.get("top_k")), explain == "true")


def _top_k(text: str | None) -> int:
    if text is None:
        return DEFAULT_TOP_K
    top_k = 0
    if text.isascii() and len(text) <= 2:
        with suppress(ValueError):
            top_k = int(text)
    if not 1 <= top_k <= CLASS_COUNT:
        detail = f"top_k is {text[:32]!r}; expected a number from 1 to {CLASS_COUNT}"
        raise malformed(detail)
    return top_k


def _prediction(probabilities: list[float], top_k: int) -> dict[str, Any]:
    ranked = sorted(range(CLASS_COUNT), key=probabilities.__getitem__, reverse=True)
    best = ranked[0]
    return {
        "label": LABELS[best],
        "class_id": best,
        "confidence": probabilities[best],
        "top_k": [
            {"label": LABELS[k], "class_id": k, "probability": probabilities[k]}
            for k in ranked[:top_k]
        ],
    }


def _model(model: LoadedModel) -> dict[str, str]:
    return {
        "model": model.card.name,
        "digest": model.card.sha256,
        "device": model.predictor.device,
    }
