"""What the server says of itself: its models, whether it is fit, its metrics, its openapi.json."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST

from service.exchange import Answer, Request, json_answer, query_parameters
from service.metrics import Metrics
from service.models import LoadedModel, ModelSet
from service.problems import MEDIA_TYPE, Kind, Problem, no_such_model, try_later

STATIC: Final = Path(__file__).parent / "static"

MODEL_PREFIX: Final = "/models/"


class Status:
    """Answers the addresses that only tell."""

    def __init__(self, models: ModelSet, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics
        self._openapi = (STATIC / "openapi.json").read_bytes()

    async def list_models(self, request: Request) -> Answer:
        """``GET /models``."""
        query_parameters(request.query)
        models = [self._summary(self._models.loaded[name]) for name in sorted(self._models.loaded)]
        return json_answer({"default": self._models.default, "models": models})

    async def show_model(self, request: Request) -> Answer:
        """``GET /models/{name}``."""
        query_parameters(request.query)
        name = request.path[len(MODEL_PREFIX) :]
        if not name:
            raise no_such_model(name, self._models.names)
        model = self._models.get(name)
        document = self._summary(model)
        document["providers"] = model.predictor.providers
        document["card"] = dataclasses.asdict(model.card)
        return json_answer(document)

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

    async def live(self, _: Request) -> Answer:
        """``GET /livez``: the process answers."""
        return json_answer({"status": "live"})

    async def ready(self, _: Request) -> Answer:
        """``GET /readyz``: every model is fit to answer, or which are not and why."""
        unfit = dict(self._models.unfit)
        if unfit:
            problem = try_later(Kind.NOT_READY, f"not fit to answer: {', '.join(sorted(unfit))}")
            return Answer(
                503,
                Problem(problem.kind, problem.detail, extras={"models": unfit}).body(),
                MEDIA_TYPE,
                problem.headers,
            )
        return json_answer({"status": "ready", "models": sorted(self._models.loaded)})

    async def show_metrics(self, _: Request) -> Answer:
        """``GET /metrics``, over all workers."""
        text = await asyncio.to_thread(self._metrics.render)
        return Answer(200, text, CONTENT_TYPE_LATEST.encode())

    async def describe(self, _: Request) -> Answer:
        """``GET /openapi.json``."""
        return Answer(200, self._openapi)
