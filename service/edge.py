"""The HTTP edge: finds the route of a request and writes its answer or refusal.

A plain ASGI application in front of BentoML's, which receives only requests for its own few paths
and the lifespan events.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import uuid4

from service.access import ALWAYS_OPEN, RELOAD
from service.backend import Backend
from service.classify import Classifier
from service.exchange import Answer, Application, Receive, Request, Route, Scope, Send
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
            Route("/classify", "POST", classifier.one),
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
        headers = answer.headers
        if self._access is not None:
            headers = (*headers, *self._access.headers(scope))
        parent = _traceparent(scope["headers"])
        if parent is not None or self._recorder.is_on:
            client = (scope.get("client") or ("",))[0]
            traced = self._recorder.record(
                scope["method"], template, answer.status, seconds, client, parent
            )
            headers = (*headers, *traced)
        await _send(send, answer, headers)

    def _find(self, path: str) -> Route | None:
        route = self._routes.get(path)
        if route is None and path.startswith(MODEL_PREFIX):
            return self._reload_route if path.endswith(RELOAD_SUFFIX) else self._model_route
        if route is None and path.startswith(PROTOCOL_PREFIX):
            return self._protocol.find(path)
        return route

    async def _answer(self, route: Route | None, scope: Scope, receive: Receive) -> Answer:
        try:
            if self._access is not None:
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
            client = scope.get("client") or ("",)
            request = Request(
                method=method,
                path=scope["path"],
                query=scope["query_string"],
                headers=dict(scope["headers"]),
                receive=receive,
                deadline=asyncio.get_running_loop().time() + self._settings.deadline_seconds,
                client=client[0],
            )
            return await route.answer(request)
        except ClientDisconnectedError:
            raise
        except Problem as problem:
            return self._refuse(problem, scope["path"])
        except Exception:  # last resort, so that every failure is answered by a problem document
            occurrence = uuid4().urn
            place = route.template if route else "other"
            context = {"instance": occurrence, "route": place}
            parent = Parent.of(_traceparent(scope["headers"]))
            if parent is not None:
                context["trace_id"] = parent.trace
            logger.exception("a request failed", extra={"context": context})
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


async def _send(send: Send, answer: Answer, more: Headers) -> None:
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
