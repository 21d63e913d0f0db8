"""Routes of the Open Inference Protocol v2 over REST, under ``/v2``, for Triton's clients.

Sources: https://github.com/kserve/open-inference-protocol and, for the extensions,
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from cifar10.contract import INPUT, OUTPUT, TensorSpec
from service.exchange import Answer, Request, Route, json_answer, query_parameters
from service.inference import INLINE_BYTES, Inference
from service.models import LoadedModel, ModelSet
from service.problems import Kind, Problem, no_such_model
from service.settings import Settings
from service.status import check_ready
from service.tensors import (
    ENCODINGS,
    INFERENCE_HEADER,
    decompress,
    error_answer,
    max_json_bytes,
    read_inference,
    write_inference,
)
from service.upload import BodyReader
from service.workers.board import Board

PREFIX: Final = "/v2"
EXTENSIONS: Final = ("binary_tensor_data", "classification")

_SERVER: Final = "cifar10-efficiency"
_VERSION: Final = "1"
"""Version of every model: the store holds one version of each."""
_READING_SECONDS: Final = 0.05
"""Upper bound of the time to read a long or compressed body."""
_MODEL_PATH: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


class Protocol:
    """Handles the routes under ``/v2``."""

    def __init__(
        self,
        settings: Settings,
        models: ModelSet,
        bodies: BodyReader,
        inference: Inference,
        board: Board,
    ) -> None:
        self._settings = settings
        self._models = models
        self._board = board
        self._bodies = bodies
        self._inference = inference
        self._fixed = {
            route.template: route
            for route in (
                Route("/v2", "GET", self._describe_server),
                Route("/v2/health/live", "GET", self._live),
                Route("/v2/health/ready", "GET", self._ready),
            )
        }
        self._of_models = {
            (versioned, action): Route(
                f"/v2/models/{{name}}{'/versions/{version}' * versioned}{action}", method, answer
            )
            for versioned in (False, True)
            for action, method, answer in (
                ("", "GET", self._describe_model),
                ("/ready", "GET", self._model_ready),
                ("/infer", "POST", self._infer),
            )
        }

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes of the protocol."""
        return *self._fixed.values(), *self._of_models.values()

    def find(self, path: str) -> Route | None:
        """Return the route of a path under ``/v2``, or None."""
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            return self._fixed.get(path)
        return self._of_models[match[2] is not None, match[3] or ""]

    refuse: Final[Callable[[Problem], Answer]] = staticmethod(error_answer)
    """Turns a problem into the protocol's error response."""

    async def _describe_server(self, request: Request) -> Answer:
        query_parameters(request.query)
        return json_answer(
            {"name": _SERVER, "version": _server_version(), "extensions": EXTENSIONS}
        )

    async def _live(self, request: Request) -> Answer:
        query_parameters(request.query)
        return json_answer({"live": True})

    async def _ready(self, request: Request) -> Answer:
        query_parameters(request.query)
        check_ready(self._models, self._board, self._inference)
        return json_answer({"ready": True})

    async def _model_ready(self, request: Request) -> Answer:
        query_parameters(request.query)
        model = self._model(request.path)
        return json_answer({"name": model.card.name, "ready": True})

    async def _describe_model(self, request: Request) -> Answer:
        query_parameters(request.query)
        model = self._model(request.path)
        return json_answer(
            {
                "name": model.card.name,
                "versions": [_VERSION],
                "platform": "onnxruntime_onnx",
                "inputs": [_tensor(INPUT)],
                "outputs": [_tensor(OUTPUT)],
            }
        )

    async def _infer(self, request: Request) -> Answer:
        query_parameters(request.query)
        model = self._model(request.path)
        body = await self._bodies.read(request, encodings=ENCODINGS)
        encoding = request.headers.get(b"content-encoding", b"").strip().lower()
        json_length = request.headers.get(INFERENCE_HEADER)
        most, max_bytes = self._settings.max_images, self._settings.max_body_bytes
        max_json = max_json_bytes(max_bytes)
        if encoding in ENCODINGS or _has_long_json(body, json_length):
            wanted = await self._inference.prepare(
                request,
                _READING_SECONDS,
                lambda: read_inference(
                    decompress(body, encoding, max_bytes), json_length, most, max_json
                ),
            )
        else:
            wanted = read_inference(body, json_length, most, max_json)
        probabilities = await self._inference.predict(model, wanted.images, request.deadline)
        return write_inference(wanted, model.card.name, probabilities)

    def _model(self, path: str) -> LoadedModel:
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            raise no_such_model(path, self._models.names)
        model = self._models.get(match[1])
        if match[2] not in (None, _VERSION):
            detail = f"the model {match[1]!r} has only version {_VERSION}, not {match[2][:16]!r}"
            raise Problem(Kind.NO_SUCH_MODEL, detail)
        return model


def _has_long_json(body: bytes, json_length: bytes | None) -> bool:
    """Whether parsing the body's JSON would block the event loop. Binary tensors need no
    parsing."""
    length = len(body)
    if json_length is not None and json_length.isdigit() and len(json_length) < 18:
        length = min(length, int(json_length))
    return length > INLINE_BYTES


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _server_version() -> str:
    try:
        return version(_SERVER)
    except PackageNotFoundError:  # running from the source folder or from a Bento
        return "unknown"
