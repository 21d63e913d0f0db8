"""Routes that describe the server: models, liveness, readiness, metrics and openapi.json."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST

from cifar10.released import AUTO
from service.exchange import Answer, Request, json_answer, query_parameters
from service.inference import Inference
from service.models import AutoModel, LoadedModel, ModelSet
from service.problems import Kind, Problem, no_such_model, try_later
from service.telemetry.metrics import Metrics
from service.workers.board import Board

T = TypeVar("T")

STATIC: Final = Path(__file__).parent / "static"

MODEL_PREFIX: Final = "/models/"


class Status:
    """Handles the read-only routes."""

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
        document: dict[str, Any] = {
            "default": self._models.default,
            "aliases": self._models.aliases,
            "models": models,
        }
        if self._models.auto is not None:
            document["auto"] = dataclasses.asdict(self._models.auto.rule)
        return json_answer(document)

    async def show_model(self, request: Request) -> Answer:
        """Answer ``GET /models/{name}``."""
        query_parameters(request.query)
        name = request.path[len(MODEL_PREFIX) :]
        if not name:
            raise no_such_model(name, self._models.names)
        model = self._models.asked(name)
        if isinstance(model, AutoModel):
            members = [self._summary(member) for member in model.members]
            rule = dataclasses.asdict(model.rule)
            return json_answer({"name": AUTO, "auto": rule, "models": members})
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
            "dataset": card.dataset.name,
            "input": list(card.image_shape),
            "classes": len(card.labels),
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
        """Answer ``GET /readyz``: whether every model and every worker is ready; if not, say which
        are not and why."""
        check_ready(self._models, self._board, self._inference)
        board = self._board
        workers = {"ready": min(board.ready, board.wanted), "of": board.wanted}
        models = sorted(self._models.loaded)
        return json_answer({"status": "ready", "models": models, "workers": workers})

    async def show_metrics(self, _: Request) -> Answer:
        """Answer ``GET /metrics`` for all workers.

        Raises:
            Problem: 503 if the workers' shared folder has been removed.
        """
        text = await of_all_workers(self._metrics, Metrics.render)
        return Answer(200, text + self._readiness(), CONTENT_TYPE_LATEST.encode())

    def _readiness(self) -> bytes:
        """Return the readiness of this server as metrics."""
        try:
            check_ready(self._models, self._board, self._inference)
            ready = 1
        except Problem:
            ready = 0
        workers = min(self._board.ready, self._board.wanted)
        return (
            "# HELP cifar10_ready Whether /readyz answers 200 (1) or 503 (0).\n"
            f"# TYPE cifar10_ready gauge\ncifar10_ready {ready}\n"
            "# HELP cifar10_workers_ready Number of workers that are ready.\n"
            f"# TYPE cifar10_workers_ready gauge\ncifar10_workers_ready {workers}\n"
        ).encode()

    async def describe(self, _: Request) -> Answer:
        """Answer ``GET /openapi.json``."""
        return Answer(200, self._openapi)


async def of_all_workers(metrics: Metrics, collect: Callable[[Metrics], T]) -> T:
    """Return ``collect(metrics)``, which reads the metrics of all workers, called in a thread.
    Those of other workers are up to :data:`~service.telemetry.tally.WRITE_SECONDS` old.

    Raises:
        Problem: 503 if the workers' shared folder has been removed.
    """
    metrics.tally.write()
    try:
        return await asyncio.to_thread(collect, metrics)
    except FileNotFoundError as error:
        detail = f"{error.strerror}; restart the server to restore metrics"
        raise try_later(Kind.NOT_READY, detail) from error


def check_ready(models: ModelSet, board: Board, inference: Inference) -> None:
    """Check that this worker and all the others can answer.

    A server with a dead worker still answers, at a lower rate. It counts as not ready, so that a
    worker that does not come back is noticed.

    Raises:
        Problem: 503 if one cannot; the detail says which and why.
    """
    unfit = dict(models.unfit)
    stuck = inference.stuck()
    ready, wanted = min(board.ready, board.wanted), board.wanted
    if not unfit and not stuck and ready == wanted:
        return
    reasons = [f"models not ready: {', '.join(sorted(unfit))}"] if unfit else []
    if stuck:
        reasons.append(stuck)
    if ready < wanted:
        reasons.append(f"{ready} of {wanted} workers ready")
    problem = try_later(Kind.NOT_READY, "; ".join(reasons))
    extras = {"models": unfit, "workers": {"ready": ready, "of": wanted}}
    raise Problem(problem.kind, problem.detail, extras=extras, headers=problem.headers)
