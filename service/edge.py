"""The HTTP edge: finds the route of a request and writes its answer or refusal.

A plain ASGI application in front of BentoML's, which receives only requests for its own few paths
and the lifespan events.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

from service.access import ALWAYS_OPEN, RELOAD
from service.backend import Backend
from service.classify import Classifier
from service.exchange import (
    ALWAYS,
    Answer,
    Application,
    Receive,
    Reply,
    Request,
    Route,
    Scope,
    Send,
)
from service.memory import return_freed_memory
from service.models import LoadedModel, ModelSet
from service.page import Page, or_page
from service.problems import MEDIA_TYPE, Headers, Kind, Problem, method_not_allowed
from service.protocol import PREFIX as PROTOCOL_PREFIX
from service.protocol import Protocol
from service.reload import SUFFIX as RELOAD_SUFFIX
from service.settings import Settings
from service.status import MODEL_PREFIX, Status
from service.telemetry.logs import ADDRESS_VARIABLE, READY
from service.telemetry.metrics import forget_dead_workers, forget_this_worker
from service.telemetry.tracing import HEADER as TRACE_HEADER
from service.telemetry.tracing import Parent
from service.upload import BodyReader, ClientDisconnectedError
from service.workers.board import Place

logger = logging.getLogger(__name__)

_ADMITTED: Final = "cifar10.admitted"
"""Key of a scope whose request has passed the access checks."""

BENTOML_PATHS: Final = frozenset(("/healthz", "/schema.json", "/docs.json"))
"""Paths that BentoML's application answers."""


class Edge:
    """The ASGI application of one worker process.

    Args:
        behind: BentoML's application.
        settings: the server's settings.
        models: the models to load; loading starts with the lifespan.
        efficiency: path of the efficiency table, which may be missing.
        place: this worker's place on the board.
        rate_key: key of the rate limit's address hash, the same in all workers.
    """

    def __init__(
        self,
        behind: Application,
        settings: Settings,
        models: ModelSet,
        efficiency: Path | None = None,
        place: Place | None = None,
        rate_key: bytes = b"",
    ) -> None:
        self._place = place = place or Place.alone()
        place.on_start = self._announce
        self._behind = behind
        self._settings = settings
        self._models = models
        self.backend = backend = Backend.of(settings, models, place, rate_key)
        self._metrics = backend.metrics
        self._inference = backend.inference
        self._reloader = backend.reloader
        self._recorder = backend.recorder
        bodies = BodyReader(settings.max_body_bytes, settings.deadline_seconds)
        classifier = Classifier(settings, models, bodies, self._inference)
        self._protocol = Protocol(backend, bodies)
        status = Status(models, self._metrics, place.board, self._inference)
        routes = (
            Route("/classify", "POST", classifier.one, classifier.begin_one),
            Route("/classify/batch", "POST", classifier.many),
            Route("/livez", "GET", status.live),
            Route("/metrics", "GET", status.show_metrics),
            Route("/models", "GET", or_page(status.list_models)),
            Route("/openapi.json", "GET", status.describe),
            Route("/readyz", "GET", status.ready),
            *Page(efficiency).routes,
        )
        self._routes = {route.template: route for route in routes}
        self._model_route = Route("/models/{name}", "GET", or_page(status.show_model, depth=1))
        self._reload_route = Route(RELOAD, "POST", self._reloader.answer)
        # None where nothing is checked, so that it costs a request only this comparison.
        self._access = None if backend.access.is_open else backend.access
        # The middleware that reads them is around this application, not around `begin`.
        self._needs_proxy_headers = bool(settings.trusted_proxies) and (
            self._access is not None or self._recorder.is_on
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes."""
        models = self._model_route, self._reload_route
        return *self._routes.values(), *models, *self._protocol.routes

    @property
    def reload(self) -> Callable[[], None] | None:
        """Handler of SIGHUP, which reloads models; None if reloading is disabled."""
        return self._reloader.on_signal if self._reloader.is_on else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to BentoML's application."""
        if scope["type"] == "http" and (
            scope["path"] not in BENTOML_PATHS
            or (self._access is not None and scope["path"] not in ALWAYS_OPEN)
        ):
            await self._respond(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._behind(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        forget_dead_workers()
        return_freed_memory()
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        self._reloader.begin_after(loading)
        loading.add_done_callback(self._on_loaded)
        try:
            await self._behind(scope, receive, send)
        finally:
            await loading
            self._inference.stop()
            self._metrics.tally.write()
            forget_this_worker()
            # Not in a thread: the event loop ends as soon as this task awaits anything.
            self._recorder.stop()

    def _load(self) -> None:
        def on_loaded(model: LoadedModel) -> None:
            self._inference.warm_up_thread(model)
            self._metrics.model_loaded(model)

        self._models.load_all(on_loaded, self._reloader.is_unloaded)

    def _announce(self) -> None:
        """Log that all workers of the server are ready."""
        loaded = self._models.loaded
        context = {
            "address": os.environ.get(ADDRESS_VARIABLE),
            "models": list(loaded),
            "workers": self._settings.workers,
            "device": "/".join(sorted({model.predictor.device for model in loaded.values()})),
        }
        logger.info(READY, extra={"context": context})

    def _on_loaded(self, _: object) -> None:
        """Report readiness, and carry out reloads that were announced during loading."""
        self._place.set_ready(self.backend.is_fit())
        if self._place.missed_reload:
            self._reloader.on_signal()

    def begin(self, scope: Scope, body: bytes, reply: Reply) -> bool:
        """Begin to answer a request that arrived with its whole body, without a task.

        Args:
            scope: the request's ASGI scope.
            body: its body.
            reply: receives the answer, now or later.

        Returns:
            False if the request takes a task, like most; then call this application.
        """
        route = self._find(scope["path"])
        if route is None or route.begin is None or scope["method"] != route.method:
            return False
        if self._needs_proxy_headers:
            return False
        started = perf_counter()

        def end(outcome: Answer | Exception) -> None:
            answer = outcome
            if not isinstance(answer, Answer):
                answer = self._failed(answer, scope, route)
            seconds = perf_counter() - started
            self._metrics.ended(route.template, answer.status, seconds)
            reply(answer, self._more_headers(scope, route.template, answer.status, seconds))

        try:
            if self._access is not None:
                self._access.admit(scope, route)  # answers only OPTIONS itself
            if not route.begin(self._request(scope, _nothing_to_receive), body, end):
                scope[_ADMITTED] = True
                return False
            self._metrics.began()
        except Exception as error:
            self._metrics.began()
            end(error)
        return True

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        route = self._find(scope["path"])
        template = route.template if route else "other"
        self._metrics.in_flight.inc()
        try:
            answer = await self._answer(route, scope, receive)
        except ClientDisconnectedError:
            self._metrics.answered(template, 499)
            return
        finally:
            self._metrics.in_flight.dec()
        seconds = perf_counter() - started
        self._metrics.answered(template, answer.status)
        self._metrics.took(template, seconds)
        more = self._more_headers(scope, template, answer.status, seconds)
        await _send(send, answer, more)

    def _more_headers(self, scope: Scope, template: str, status: int, seconds: float) -> Headers:
        """Record an answered request, and return the headers that its answer gets besides its
        own."""
        headers: Headers = () if self._access is None else self._access.headers(scope)
        parent = _traceparent(scope["headers"])
        if parent is not None or self._recorder.is_on:
            client = (scope.get("client") or ("",))[0]
            traced = self._recorder.record(
                scope["method"], template, status, seconds, client, parent
            )
            headers = (*headers, *traced)
        return headers

    def _find(self, path: str) -> Route | None:
        route = self._routes.get(path)
        if route is None and path.startswith(MODEL_PREFIX):
            return self._reload_route if path.endswith(RELOAD_SUFFIX) else self._model_route
        if route is None and path.startswith(PROTOCOL_PREFIX):
            return self._protocol.find(path)
        return route

    async def _answer(self, route: Route | None, scope: Scope, receive: Receive) -> Answer:
        try:
            if self._access is not None and _ADMITTED not in scope:
                early = self._access.admit(scope, route)
                if early is not None:
                    return early
            if route is None:
                detail = "no such address; /openapi.json lists all of them"
                raise Problem(Kind.NOT_FOUND, detail)
            method = scope["method"]
            if method != route.method and not (method == "HEAD" and route.method == "GET"):
                allowed = "GET, HEAD" if route.method == "GET" else route.method
                raise method_not_allowed(method, allowed)
            return await route.answer(self._request(scope, receive))
        except ClientDisconnectedError:
            raise
        except Exception as error:
            return self._failed(error, scope, route)

    def _request(self, scope: Scope, receive: Receive) -> Request:
        return Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"],
            headers=dict(scope["headers"]),
            receive=receive,
            deadline=asyncio.get_running_loop().time() + self._settings.deadline_seconds,
            client=(scope.get("client") or ("",))[0],
        )

    def _failed(self, error: Exception, scope: Scope, route: Route | None) -> Answer:
        """Return the answer to a request that is refused, or that fails because of a defect."""
        if isinstance(error, Problem):
            return self._refuse(error, scope["path"])
        occurrence = uuid4().urn
        context = {"instance": occurrence, "route": route.template if route else "other"}
        parent = Parent.of(_traceparent(scope["headers"]))
        if parent is not None:
            context["trace_id"] = parent.trace
        logger.error("a request failed", exc_info=error, extra={"context": context})
        detail = "an internal error; the server's log describes it under this instance"
        return self._refuse(Problem(Kind.INTERNAL, detail, instance=occurrence), scope["path"])

    def count_refusal(self, kind: Kind) -> None:
        """Count a refused request. Also called for requests refused before they reach the edge."""
        self._metrics.rejected.labels(kind.slug).inc()

    def _refuse(self, problem: Problem, path: str) -> Answer:
        self.count_refusal(problem.kind)
        if path == PROTOCOL_PREFIX or path.startswith(f"{PROTOCOL_PREFIX}/"):
            return self._protocol.refuse(problem)
        return Answer(problem.kind.status, problem.body(), MEDIA_TYPE, problem.headers)


def _traceparent(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == TRACE_HEADER:
            return value
    return None


async def _nothing_to_receive() -> MutableMapping[str, Any]:
    message = "the body of this request was given to its handler"
    raise RuntimeError(message)


async def _send(send: Send, answer: Answer, more: Headers) -> None:
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        *ALWAYS,
        *answer.headers,
        *more,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
