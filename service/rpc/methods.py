"""The RPCs of the Open Inference Protocol, and their refusals as gRPC statuses."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from service.backend import Backend
from service.descriptions import (
    configuration,
    describe_model,
    describe_server,
    find_model,
    index,
    statistics,
)
from service.inference import INLINE_BYTES
from service.problems import Kind, Problem, malformed
from service.rpc.calls import Call
from service.rpc.messages import from_document, message_class, parse
from service.rpc.tensors import parse_request, read_inference, write_inference
from service.status import check_ready, of_all_workers
from service.telemetry.metrics import Metrics

_PARSING_SECONDS: Final = 0.02
"""Upper bound of the time to parse a long message."""

_Code = grpc.StatusCode

STATUSES: Final[Mapping[Kind, Any]] = {
    Kind.MALFORMED: _Code.INVALID_ARGUMENT,
    Kind.UNAUTHORIZED: _Code.UNAUTHENTICATED,
    Kind.FORBIDDEN: _Code.PERMISSION_DENIED,
    Kind.NO_SUCH_MODEL: _Code.NOT_FOUND,
    Kind.NOT_FOUND: _Code.NOT_FOUND,
    Kind.METHOD: _Code.UNIMPLEMENTED,
    Kind.BODY_TIMEOUT: _Code.DEADLINE_EXCEEDED,
    Kind.HEAD_TIMEOUT: _Code.DEADLINE_EXCEEDED,
    Kind.UNFIT_FILE: _Code.FAILED_PRECONDITION,
    Kind.TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Kind.UNSUPPORTED: _Code.INVALID_ARGUMENT,
    Kind.UNDECODABLE: _Code.INVALID_ARGUMENT,
    Kind.TOO_MANY_PIXELS: _Code.INVALID_ARGUMENT,
    Kind.RATE_LIMITED: _Code.RESOURCE_EXHAUSTED,
    Kind.HEAD_TOO_LARGE: _Code.RESOURCE_EXHAUSTED,
    Kind.INTERNAL: _Code.INTERNAL,
    Kind.QUEUE_FULL: _Code.UNAVAILABLE,
    Kind.NOT_READY: _Code.UNAVAILABLE,
    Kind.TOO_MANY_CONNECTIONS: _Code.UNAVAILABLE,
    Kind.DEADLINE: _Code.DEADLINE_EXCEEDED,
}
"""Kind of problem → gRPC status. A client may repeat a call that is ``UNAVAILABLE``."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC with one message each way, as bytes."""

    answer: Callable[[Call, bytes], Awaitable[bytes]]
    is_open: bool = False
    """Whether it needs no token and is not rate-limited: a health check."""
    is_administration: bool = False
    """Whether it checks the administrator's token itself."""


class Methods:
    """Answers the RPCs of one worker."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._settings = backend.settings
        self._models = backend.models

    def table(self) -> dict[str, Method]:
        """Return every RPC with one message each way: name → method."""
        return {
            "ServerLive": self._method("ServerLive", self._server_live, is_open=True),
            "ServerReady": self._method("ServerReady", self._server_ready, is_open=True),
            "ModelReady": self._method("ModelReady", self._model_ready),
            "ServerMetadata": self._method("ServerMetadata", self._server_metadata),
            "ModelMetadata": self._method("ModelMetadata", self._model_metadata),
            "ModelConfig": self._method("ModelConfig", self._model_config),
            "ModelStatistics": self._method("ModelStatistics", self._model_statistics),
            "RepositoryIndex": self._method("RepositoryIndex", self._repository_index),
            "RepositoryModelLoad": self._method(
                "RepositoryModelLoad", self._load, is_administration=True
            ),
            "RepositoryModelUnload": self._method(
                "RepositoryModelUnload", self._unload, is_administration=True
            ),
            "ModelInfer": Method(self.infer),
        }

    def _method(
        self,
        name: str,
        describe: Callable[[Call, Any], Awaitable[dict[str, Any]]],
        *,
        is_open: bool = False,
        is_administration: bool = False,
    ) -> Method:
        """Return the RPC whose answer is a document; see :mod:`service.descriptions`."""
        request_class = message_class(f"{name}Request")

        async def answer(call: Call, message: bytes) -> bytes:
            document = await describe(call, parse(request_class, message))
            encoded: bytes = from_document(f"{name}Response", document).SerializeToString()
            return encoded

        return Method(answer, is_open, is_administration)

    async def infer(self, call: Call, message: bytes) -> bytes:
        """Answer ``ModelInfer``, or one message of ``ModelStreamInfer``."""
        most = self._settings.max_images
        if len(message) <= INLINE_BYTES:
            request = parse_request(message, most, is_small=True)
            model = find_model(self._models, request.model_name, request.model_version)
            wanted = read_inference(request, model.card, most)
        else:
            request = await self._backend.inference.prepare(
                call, _PARSING_SECONDS, lambda: parse_request(message, most, is_small=False)
            )
            model = find_model(self._models, request.model_name, request.model_version)
            wanted = await self._backend.inference.prepare(
                call, _PARSING_SECONDS, read_inference, request, model.card, most
            )
        probabilities = await self._backend.inference.answer(model, wanted, call)
        return write_inference(wanted, model.card, probabilities)

    async def _server_live(self, _: Call, __: Any) -> dict[str, Any]:
        return {"live": True}

    async def _server_ready(self, _: Call, __: Any) -> dict[str, Any]:
        try:
            check_ready(self._models, self._backend.board, self._backend.inference)
        except Problem:
            return {"ready": False}
        return {"ready": True}

    async def _model_ready(self, _: Call, request: Any) -> dict[str, Any]:
        try:
            find_model(self._models, request.name, request.version)
        except Problem as problem:
            if problem.kind is not Kind.NOT_READY:
                raise
            return {"ready": False}
        return {"ready": True}

    async def _server_metadata(self, _: Call, __: Any) -> dict[str, Any]:
        return describe_server(self._settings)

    async def _model_metadata(self, _: Call, request: Any) -> dict[str, Any]:
        return describe_model(find_model(self._models, request.name, request.version))

    async def _model_config(self, _: Call, request: Any) -> dict[str, Any]:
        model = find_model(self._models, request.name, request.version)
        return {"config": configuration(model, self._settings)}

    async def _model_statistics(self, _: Call, request: Any) -> dict[str, Any]:
        if request.name:
            models = [find_model(self._models, request.name, request.version)]
        else:
            models = list(self._models.loaded.values())
        totals = await of_all_workers(self._backend.metrics, Metrics.model_totals)
        return statistics(models, totals)

    async def _repository_index(self, _: Call, request: Any) -> dict[str, Any]:
        return {"models": index(self._models, only_ready=request.ready)}

    async def _load(self, call: Call, request: Any) -> dict[str, Any]:
        self._backend.reloader.check_allowed(call.headers)
        if request.parameters:
            detail = "a model is loaded as its card describes it; no parameters are accepted"
            raise malformed(detail)
        await self._backend.reloader.load(request.model_name)
        return {}

    async def _unload(self, call: Call, request: Any) -> dict[str, Any]:
        self._backend.reloader.check_allowed(call.headers)
        await self._backend.reloader.unload(request.model_name)
        return {}
