"""Routes that describe the server: models, liveness, readiness, metrics and openapi.json."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST

from service.exchange import Answer, Request, json_answer, query_parameters
from service.inference import Inference
from service.models import LoadedModel, ModelSet
from service.problems import Kind, Problem, no_such_model, try_later
from service.telemetry.metrics import Metrics
from service.workers.board import Board

STATIC: Final = Path(__file__).parent / "static"

MODEL_PREFIX: Final = "/models/"


class Status:
    """Answers the routes that change nothing."""

    def __init__(
        self, models: ModelSet, metrics: Metrics, board: Board, inference: Inference
    ) -> None:
        self._models = models
        self._board = board
        self._inference = inference
        self._metrics = metrics
        self._openapi = (STATIC / "openapi.json").read_bytes()

    async def list_models(self, request: Request) -> Answer:
        """Answer ``GET /models``."""
        query_parameters(request.query)
        models = [self._summary(self._models.loaded[name]) for name in sorted(self._models.loaded)]
        return json_answer(
            {
                "default": self._models.default,
                "aliases": self._models.aliases,
                "models": models,
            }
        )

    async def show_model(self, request: Request) -> Answer:
        """Answer ``GET /models/{name}``."""
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
        """Answer ``GET /livez``: the process runs."""
        return json_answer({"status": "live"})

    async def ready(self, _: Request) -> Answer:
        """Answer ``GET /readyz``: every model is fit and every worker runs, or which are not and
        why."""
        check_ready(self._models, self._board, self._inference)
        board = self._board
        workers = {"ready": min(board.ready, board.wanted), "of": board.wanted}
        models = sorted(self._models.loaded)
        return json_answer({"status": "ready", "models": models, "workers": workers})

    async def show_metrics(self, _: Request) -> Answer:
        """Answer ``GET /metrics`` for all workers.

        Raises:
            Problem: 503, the folder that the workers share is gone.
        """
        try:
            text = await asyncio.to_thread(self._metrics.render)
        except FileNotFoundError as error:
            detail = f"{error.strerror}; the server must be restarted to count again"
            raise try_later(Kind.NOT_READY, detail) from error
        return Answer(200, text, CONTENT_TYPE_LATEST.encode())

    async def describe(self, _: Request) -> Answer:
        """Answer ``GET /openapi.json``."""
        return Answer(200, self._openapi)


def check_ready(models: ModelSet, board: Board, inference: Inference) -> None:
    """Check that this worker and all the others can answer.

    A server with a dead worker still answers, at a lower rate. It is not ready all the same, so
    that a worker that does not come back is seen.

    Raises:
        Problem: 503; the detail says what is missing.
    """
    unfit = dict(models.unfit)
    stuck = inference.stuck()
    ready, wanted = min(board.ready, board.wanted), board.wanted
    if not unfit and not stuck and ready == wanted:
        return
    reasons = [f"not fit to answer: {', '.join(sorted(unfit))}"] if unfit else []
    if stuck:
        reasons.append(stuck)
    if ready < wanted:
        reasons.append(f"{ready} of {wanted} workers ready")
    problem = try_later(Kind.NOT_READY, "; ".join(reasons))
    extras = {"models": unfit, "workers": {"ready": ready, "of": wanted}}
    raise Problem(problem.kind, problem.detail, extras=extras, headers=problem.headers)
