"""The HTTP face: which address is whose, and how an answer or a refusal is written.

A plain ASGI application in front of BentoML's, which gets only what is not ours: its own few
addresses and the start and end of the process.
"""

import asyncio
import logging
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import uuid4

from service.classify import Classifier
from service.exchange import Answer, Application, Receive, Request, Route, Scope, Send
from service.inference import Inference
from service.metrics import Metrics, forget_dead_workers, forget_this_worker
from service.models import ModelSet
from service.page import Page
from service.problems import MEDIA_TYPE, Kind, Problem, method_not_allowed
from service.protocol import PREFIX as PROTOCOL_PREFIX
from service.protocol import Protocol
from service.settings import Settings
from service.status import MODEL_PREFIX, Status
from service.upload import BodyReader, ClientDisconnectedError

logger = logging.getLogger(__name__)

BENTOML_PATHS: Final = frozenset(("/healthz", "/schema.json", "/docs.json"))
"""What BentoML's application still answers."""


class Edge:
    """The ASGI application of one worker process.

    Args:
        behind: BentoML's application.
        settings: limits and deadlines.
        models: what to load; loading starts with the lifespan.
        efficiency: the file of the efficiency table, which need not be there.
    """

    def __init__(
        self,
        behind: Application,
        settings: Settings,
        models: ModelSet,
        efficiency: Path | None = None,
    ) -> None:
        self._behind = behind
        self._settings = settings
        self._models = models
        self._metrics = Metrics()
        self._inference = Inference(settings, self._metrics)
        bodies = BodyReader(settings.max_body_bytes, settings.deadline_seconds)
        classifier = Classifier(settings, models, bodies, self._inference)
        self._protocol = Protocol(settings, models, bodies, self._inference)
        status = Status(models, self._metrics)
        routes = (
            Route("/classify", "POST", classifier.one),
            Route("/classify/batch", "POST", classifier.many),
            Route("/livez", "GET", status.live),
            Route("/metrics", "GET", status.show_metrics),
            Route("/models", "GET", status.list_models),
            Route("/openapi.json", "GET", status.describe),
            Route("/readyz", "GET", status.ready),
            *Page(efficiency).routes,
        )
        self._routes = {route.template: route for route in routes}
        self._model_route = Route("/models/{name}", "GET", status.show_model)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route there is."""
        return *self._routes.values(), self._model_route, *self._protocol.routes

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
            self._metrics.answered(template, 499)
            return
        finally:
            self._metrics.in_flight.dec()
        self._metrics.answered(template, answer.status)
        self._metrics.took(template, perf_counter() - started)
        await _send(send, answer)

    def _find(self, path: str) -> Route | None:
        route = self._routes.get(path)
        if route is None and path.startswith(MODEL_PREFIX):
            return self._model_route
        if route is None and path.startswith(PROTOCOL_PREFIX):
            return self._protocol.find(path)
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
            return self._refuse(problem, scope["path"])
        except Exception:  # the last resort: nothing but a problem document leaves this server
            occurrence = uuid4().urn
            place = route.template if route else "other"
            logger.exception(
                "a request failed", extra={"context": {"instance": occurrence, "route": place}}
            )
            detail = "an error that is the server's; its log has it under this instance"
            return self._refuse(Problem(Kind.INTERNAL, detail, instance=occurrence), scope["path"])

    def _refuse(self, problem: Problem, path: str) -> Answer:
        self._metrics.rejected.labels(problem.kind.slug).inc()
        if path == PROTOCOL_PREFIX or path.startswith(f"{PROTOCOL_PREFIX}/"):
            return self._protocol.refuse(problem)
        return Answer(problem.kind.status, problem.body(), MEDIA_TYPE, problem.headers)


async def _send(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
