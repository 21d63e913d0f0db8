"""Routes of the Open Inference Protocol v2 over REST, under ``/v2``, for Triton's clients.

Sources: https://github.com/kserve/open-inference-protocol and, for the extensions,
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from service.access import LOAD, UNLOAD
from service.backend import Backend
from service.batcher import Probabilities
from service.descriptions import (
    configuration,
    describe_model,
    describe_server,
    find_model,
    index,
    statistics,
)
from service.exchange import (
    Answer,
    End,
    Request,
    Route,
    delivering,
    json_answer,
    query_parameters,
)
from service.inference import INLINE_BYTES
from service.models import LoadedModel
from service.problems import Problem, malformed, no_such_model, too_large
from service.status import check_ready, of_all_workers
from service.telemetry.metrics import Metrics
from service.tensors import (
    ENCODINGS,
    INFERENCE_HEADER,
    decompress,
    error_answer,
    max_json_bytes,
    parse_object,
    read_inference,
    write_inference,
)
from service.upload import BodyReader

PREFIX: Final = "/v2"

_READING_SECONDS: Final = 0.05
"""Upper bound of the time to read a long or compressed body."""
_MODEL_PATH: Final = re.compile(
    r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer|/config|/stats)?"
)
_REPOSITORY_PATH: Final = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
_MAX_OPTIONS_BYTES: Final = 4_096
"""Largest body of a repository route."""


class Protocol:
    """Handles the routes under ``/v2``."""

    def __init__(self, backend: Backend, bodies: BodyReader) -> None:
        self._settings = backend.settings
        self._max_json = max_json_bytes(backend.settings.max_body_bytes)
        self._models = backend.models
        self._board = backend.board
        self._bodies = bodies
        self._inference = backend.inference
        self._metrics = backend.metrics
        self._reloader = backend.reloader
        self._fixed = {
            route.template: route
            for route in (
                Route("/v2", "GET", self._describe_server),
                Route("/v2/health/live", "GET", self._live),
                Route("/v2/health/ready", "GET", self._ready),
                Route("/v2/models/stats", "GET", self._all_statistics),
                Route("/v2/repository/index", "POST", self._index),
            )
        }
        self._of_models = {
            (versioned, action): Route(
                f"/v2/models/{{name}}{'/versions/{version}' * versioned}{action}",
                method,
                answer,
                begin,
            )
            for versioned in (False, True)
            for action, method, answer, begin in (
                ("", "GET", self._describe_model, None),
                ("/ready", "GET", self._model_ready, None),
                ("/config", "GET", self._configuration, None),
                ("/stats", "GET", self._statistics, None),
                ("/infer", "POST", self._infer, self._begin_infer),
            )
        }
        self._of_repository = {
            "load": Route(LOAD, "POST", self._load),
            "unload": Route(UNLOAD, "POST", self._unload),
        }

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes of the protocol."""
        return *self._fixed.values(), *self._of_models.values(), *self._of_repository.values()

    def find(self, path: str) -> Route | None:
        """Return the route of a path under ``/v2``, or None."""
        fixed = self._fixed.get(path)  # first: /v2/models/stats is not a model's
        if fixed is not None:
            return fixed
        match = _MODEL_PATH.fullmatch(path)
        if match is not None:
            return self._of_models[match[2] is not None, match[3] or ""]
        match = _REPOSITORY_PATH.fullmatch(path)
        return None if match is None else self._of_repository[match[2]]

    refuse: Final[Callable[[Problem], Answer]] = staticmethod(error_answer)
    """Turns a problem into the protocol's error response."""

    async def _describe_server(self, request: Request) -> Answer:
        query_parameters(request.query)
        return json_answer(describe_server(self._settings))

    async def _live(self, request: Request) -> Answer:
        query_parameters(request.query)
        return json_answer({"live": True})

    async def _ready(self, request: Request) -> Answer:
        query_parameters(request.query)
        check_ready(self._models, self._board, self._inference)
        return json_answer({"ready": True})

    async def _model_ready(self, request: Request) -> Answer:
        model = self._model(request)
        return json_answer({"name": model.card.name, "ready": True})

    async def _describe_model(self, request: Request) -> Answer:
        return json_answer(describe_model(self._model(request)))

    async def _configuration(self, request: Request) -> Answer:
        return json_answer(configuration(self._model(request), self._settings))

    async def _statistics(self, request: Request) -> Answer:
        return await self._statistics_of(self._model(request))

    async def _all_statistics(self, request: Request) -> Answer:
        query_parameters(request.query)
        return await self._statistics_of(*self._models.loaded.values())

    async def _statistics_of(self, *models: LoadedModel) -> Answer:
        totals = await of_all_workers(self._metrics, Metrics.model_totals)
        return json_answer(statistics(models, totals))

    async def _index(self, request: Request) -> Answer:
        options = await self._options(request, ("ready",))
        only_ready = options.get("ready", False)
        if not isinstance(only_ready, bool):
            detail = "'ready' is not true or false"
            raise malformed(detail)
        return Answer(200, orjson.dumps(index(self._models, only_ready=only_ready)))

    async def _load(self, request: Request) -> Answer:
        self._reloader.check_allowed(request.headers.items())
        options = await self._options(request, ("parameters",))
        if options.get("parameters"):
            detail = "a model is loaded as its card describes it; no parameters are accepted"
            raise malformed(detail)
        return json_answer(await self._reloader.load(_name_in_repository(request.path)))

    async def _unload(self, request: Request) -> Answer:
        self._reloader.check_allowed(request.headers.items())
        await self._options(request, ("parameters",))  # such as unload_dependents: there are none
        return json_answer(await self._reloader.unload(_name_in_repository(request.path)))

    async def _options(self, request: Request, accepted: tuple[str, ...]) -> dict[str, Any]:
        query_parameters(request.query)
        body = await self._bodies.read(request, may_be_empty=True)
        if len(body) > _MAX_OPTIONS_BYTES:
            raise too_large(_MAX_OPTIONS_BYTES)
        options = parse_object(body) if body.strip() else {}
        for name in options:
            if name not in accepted:
                detail = f"unknown member {name[:32]!r}; accepted: {', '.join(accepted)}"
                raise malformed(detail)
        return options

    async def _infer(self, request: Request) -> Answer:
        model = self._model(request)
        body = await self._bodies.read(request, encodings=ENCODINGS)
        encoding = request.headers.get(b"content-encoding", b"").strip().lower()
        json_length = request.headers.get(INFERENCE_HEADER)
        most, max_bytes = self._settings.max_images, self._settings.max_body_bytes
        max_json = self._max_json
        if encoding in ENCODINGS or _has_long_json(body, json_length):
            wanted = await self._inference.prepare(
                request,
                _READING_SECONDS,
                lambda: read_inference(
                    decompress(body, encoding, max_bytes), json_length, model.card, most, max_json
                ),
            )
        else:
            wanted = read_inference(body, json_length, model.card, most, max_json)
        probabilities = await self._inference.answer(model, wanted, request)
        return write_inference(wanted, model.card, probabilities)

    def _begin_infer(self, request: Request, body: bytes, end: End) -> bool:
        """Begin to answer a request for inference like :meth:`_infer`, but without a task. Return
        False for compressed bodies, long JSON, many or large images and slow models."""
        json_length = request.headers.get(INFERENCE_HEADER)
        if not self._bodies.is_plain(request, body) or _has_long_json(body, json_length):
            return False
        model = self._model(request)
        wanted = read_inference(
            body, json_length, model.card, self._settings.max_images, self._max_json
        )

        def write(_: LoadedModel, probabilities: Probabilities) -> Answer:
            return write_inference(wanted, model.card, probabilities)

        deliver = delivering(end, write)
        return self._inference.begin_answer(model, wanted, request.deadline, deliver)

    def _model(self, request: Request) -> LoadedModel:
        query_parameters(request.query)
        match = _MODEL_PATH.fullmatch(request.path)
        if match is None:
            raise no_such_model(request.path, self._models.names)
        return find_model(self._models, match[1], match[2])


def _name_in_repository(path: str) -> str:
    match = _REPOSITORY_PATH.fullmatch(path)
    return match[1] if match is not None else path


def _has_long_json(body: bytes, json_length: bytes | None) -> bool:
    """Whether parsing the body's JSON would block the event loop. Binary tensors need no
    parsing."""
    length = len(body)
    if json_length is not None and json_length.isdigit() and len(json_length) < 18:
        length = min(length, int(json_length))
    return length > INLINE_BYTES
