"""The HTTP face: which address does what, and how an answer or a refusal is written.

A plain ASGI application in front of BentoML's, which gets only what is not ours: its own few
addresses and the start and end of the process.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST

from cifar10.labels import CLASS_COUNT, LABELS
from service.inference import Inference
from service.metrics import Metrics, forget_dead_workers, forget_this_worker
from service.models import LoadedModel, ModelSet
from service.problems import (
    MEDIA_TYPE,
    Headers,
    Kind,
    Problem,
    malformed,
    method_not_allowed,
    no_such_model,
    try_later,
)
from service.settings import Settings
from service.upload import ClientDisconnectedError, HeaderMap, Receive, read_body

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

JSON: Final = b"application/json"
STATIC: Final = Path(__file__).parent / "static"

DEFAULT_TOP_K: Final = 3

BENTOML_PATHS: Final = ("/healthz", "/schema.json", "/docs.json")
"""What BentoML's application still answers."""

_MODEL_PREFIX: Final = "/models/"

_PAGE_HEADERS: Final[Headers] = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        b"img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: Headers = ()


@dataclass(frozen=True)
class Request:
    """A request whose body has not been read."""

    method: str
    path: str
    query: bytes
    headers: HeaderMap
    receive: Receive
    deadline: float
    """On the event loop's clock."""


@dataclass(frozen=True)
class Route:
    """An address, its one method, and who answers."""

    template: str
    """As it is named in the metrics and in openapi.json."""
    method: str
    answer: Callable[[Request], Awaitable[Answer]]


class Edge:
    """The ASGI application of one worker process.

    Args:
        behind: BentoML's application.
        settings: limits and deadlines.
        models: what to load; loading starts with the lifespan.
    """

    def __init__(self, behind: Application, settings: Settings, models: ModelSet) -> None:
        self._behind = behind
        self._settings = settings
        self._models = models
        self._metrics = Metrics()
        self._inference = Inference(settings, self._metrics)
        self._page = (STATIC / "index.html").read_bytes()
        self._openapi = (STATIC / "openapi.json").read_bytes()
        routes = (
            Route("/", "GET", self._show_page),
            Route("/classify", "POST", self._classify),
            Route("/livez", "GET", self._live),
            Route("/metrics", "GET", self._show_metrics),
            Route("/models", "GET", self._list_models),
            Route("/openapi.json", "GET", self._describe),
            Route("/readyz", "GET", self._ready),
        )
        self._routes = {route.template: route for route in routes}
        self._model_route = Route("/models/{name}", "GET", self._show_model)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on to BentoML's application."""
        if scope["type"] == "http" and scope["path"] not in BENTOML_PATHS:
            await self._respond(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live_through(scope, receive, send)
        else:
            await self._behind(scope, receive, send)

    async def _live_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        forget_dead_workers()
        loading = asyncio.create_task(
            asyncio.to_thread(self._models.load_all, self._metrics.model_loaded)
        )
        try:
            await self._behind(scope, receive, send)
        finally:
            await loading
            self._inference.stop()
            forget_this_worker()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        route = self._find(scope["path"])
        template = route.template if route else "other"
        self._metrics.in_flight.inc()
        try:
            answer = await self._answer(route, scope, receive)
        except ClientDisconnectedError:
            self._metrics.requests.labels(template, "499").inc()
            return
        finally:
            self._metrics.in_flight.dec()
        self._metrics.requests.labels(template, str(answer.status)).inc()
        self._metrics.request_seconds.labels(template).observe(perf_counter() - started)
        await _send(send, answer)

    def _find(self, path: str) -> Route | None:
        route = self._routes.get(path)
        if route is None and path.startswith(_MODEL_PREFIX):
            return self._model_route
        return route

    async def _answer(self, route: Route | None, scope: Scope, receive: Receive) -> Answer:
        try:
            if route is None:
                detail = "nothing is here; /openapi.json lists what there is"
                raise Problem(Kind.NOT_FOUND, detail)
            method = scope["method"]
            if method != route.method and not (method == "HEAD" and route.method == "GET"):
                allowed = "GET, HEAD" if route.method == "GET" else route.method
                raise method_not_allowed(method, allowed)
            request = Request(
                method=method,
                path=scope["path"],
                query=scope["query_string"],
                headers=dict(scope["headers"]),
                receive=receive,
                deadline=asyncio.get_running_loop().time() + self._settings.deadline_seconds,
            )
            return await route.answer(request)
        except ClientDisconnectedError:
            raise
        except Problem as problem:
            return self._refuse(problem)
        except Exception:  # the last resort: nothing but a problem document leaves this server
            occurrence = uuid4().urn
            place = route.template if route else "other"
            logger.exception(
                "a request failed", extra={"context": {"instance": occurrence, "route": place}}
            )
            detail = "an error that is the server's; its log has it under this instance"
            return self._refuse(Problem(Kind.INTERNAL, detail, instance=occurrence))

    def _refuse(self, problem: Problem) -> Answer:
        self._metrics.rejected.labels(problem.kind.slug).inc()
        return Answer(problem.kind.status, problem.body(), MEDIA_TYPE, problem.headers)

    async def _classify(self, request: Request) -> Answer:
        name, top_k = _classify_parameters(request.query)
        model = self._models.get(name)
        try:
            async with asyncio.timeout_at(request.deadline):
                body = await read_body(
                    request.receive, request.headers, self._settings.max_body_bytes
                )
        except TimeoutError:
            detail = f"it was not complete after {self._settings.deadline_seconds:g} seconds"
            headers = ((b"connection", b"close"),)
            raise Problem(Kind.BODY_TIMEOUT, detail, headers=headers) from None
        content_type = request.headers.get(b"content-type", b"")
        try:
            async with asyncio.timeout_at(request.deadline):
                tile = await self._inference.decode(body, content_type)
                probabilities = await self._inference.predict(model, tile)
        except TimeoutError:
            detail = f"there was no answer within {self._settings.deadline_seconds:g} seconds"
            raise Problem(Kind.DEADLINE, detail) from None
        self._metrics.classified.labels(model.card.name).inc()
        return Answer(200, orjson.dumps(_prediction(model, probabilities, top_k)))

    async def _list_models(self, request: Request) -> Answer:
        _no_parameters(request.query)
        models = [self._summary(self._models.loaded[name]) for name in sorted(self._models.loaded)]
        return _json({"default": self._models.default, "models": models})

    async def _show_model(self, request: Request) -> Answer:
        _no_parameters(request.query)
        name = request.path[len(_MODEL_PREFIX) :]
        if not name:
            raise no_such_model(name, self._models.names)
        model = self._models.get(name)
        document = self._summary(model)
        document["providers"] = model.predictor.providers
        document["card"] = dataclasses.asdict(model.card)
        return _json(document)

    def _summary(self, model: LoadedModel) -> dict[str, Any]:
        card = model.card
        test = card.accuracy.test if card.accuracy else None
        return {
            "name": card.name,
            "default": card.name == self._models.default,
            "recipe": card.recipe,
            "precision": card.precision,
            "digest": card.sha256,
            "device": model.predictor.device,
            "provider": model.predictor.provider,
            "parameters": card.parameters.total,
            "macs": card.macs,
            "size_bytes": card.size_bytes,
            "test_accuracy": test
            and {
                "accuracy": test.accuracy,
                "low": test.low,
                "high": test.high,
                "count": test.count,
            },
        }

    async def _live(self, _: Request) -> Answer:
        return _json({"status": "live"})

    async def _ready(self, _: Request) -> Answer:
        unfit = dict(self._models.unfit)
        if unfit:
            problem = try_later(Kind.NOT_READY, f"not fit to answer: {', '.join(sorted(unfit))}")
            return Answer(
                503,
                Problem(problem.kind, problem.detail, extras={"models": unfit}).body(),
                MEDIA_TYPE,
                problem.headers,
            )
        return _json({"status": "ready", "models": sorted(self._models.loaded)})

    async def _show_metrics(self, _: Request) -> Answer:
        text = await asyncio.to_thread(self._metrics.render)
        return Answer(200, text, CONTENT_TYPE_LATEST.encode())

    async def _show_page(self, _: Request) -> Answer:
        return Answer(200, self._page, b"text/html; charset=utf-8", _PAGE_HEADERS)

    async def _describe(self, _: Request) -> Answer:
        return Answer(200, self._openapi)


def _json(document: dict[str, Any]) -> Answer:
    return Answer(200, orjson.dumps(document))


def _parameters(query: bytes, allowed: tuple[str, ...]) -> dict[str, str]:
    """The query's parameters; one that is unknown or given twice is refused, not passed over."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        detail = "the query has too many parameters"
        raise malformed(detail) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            detail = f"unknown parameter {name[:32]!r}; accepted: {', '.join(allowed) or 'none'}"
            raise malformed(detail)
        if name in found:
            detail = f"the parameter {name!r} is given twice"
            raise malformed(detail)
        found[name] = value
    return found


def _no_parameters(query: bytes) -> None:
    _parameters(query, ())


def _classify_parameters(query: bytes) -> tuple[str | None, int]:
    found = _parameters(query, ("model", "top_k"))
    text = found.get("top_k")
    if text is None:
        return found.get("model"), DEFAULT_TOP_K
    top_k = 0
    if text.isascii() and len(text) <= 2:
        with suppress(ValueError):
            top_k = int(text)
    if not 1 <= top_k <= CLASS_COUNT:
        detail = f"top_k is {text[:32]!r}; expected a number from 1 to {CLASS_COUNT}"
        raise malformed(detail)
    return found.get("model"), top_k


def _prediction(
    model: LoadedModel, probabilities: NDArray[np.float32], top_k: int
) -> dict[str, Any]:
    values = probabilities.tolist()
    ranked = sorted(range(CLASS_COUNT), key=values.__getitem__, reverse=True)
    best = ranked[0]
    return {
        "label": LABELS[best],
        "class_id": best,
        "confidence": values[best],
        "top_k": [
            {"label": LABELS[k], "class_id": k, "probability": values[k]} for k in ranked[:top_k]
        ],
        "model": model.card.name,
        "digest": model.card.sha256,
        "device": model.predictor.device,
    }


async def _send(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
