"""Descriptions of the server and its models, as the Open Inference Protocol and Triton's extensions
have them.

REST sends these documents as JSON; gRPC converts them to messages of the same fields. Durations are
in nanoseconds.

Source: https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from cifar10.contract import TensorSpec
from service.models import LoadedModel, ModelSet
from service.problems import Kind, Problem
from service.settings import Settings

EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "statistics")
REPOSITORY_EXTENSION: Final = "model_repository"
"""Listed only where models can be loaded and unloaded: with an administrator's token."""

VERSION: Final = "1"
"""Version of every model: the store holds one version of each."""

_SERVER: Final = "cifar10-efficiency"


def find_model(models: ModelSet, name: str, wanted_version: str | None) -> LoadedModel:
    """Return a loaded model.

    Args:
        models: the models.
        name: its name.
        wanted_version: its version; None or empty: the only one.

    Raises:
        Problem: 404 for an unknown name or version, 503 for a model that is not ready.
    """
    model = models.get(name)
    if wanted_version and wanted_version != VERSION:
        detail = f"the model {name!r} has only version {VERSION}, not {wanted_version[:16]!r}"
        raise Problem(Kind.NO_SUCH_MODEL, detail)
    return model


def describe_server(settings: Settings) -> dict[str, Any]:
    """Return the server's metadata."""
    try:
        number = version(_SERVER)
    except PackageNotFoundError:  # running from the source folder or from a Bento
        number = "unknown"
    repository = () if settings.admin_token is None else (REPOSITORY_EXTENSION,)
    return {"name": _SERVER, "version": number, "extensions": [*EXTENSIONS, *repository]}


def describe_model(model: LoadedModel) -> dict[str, Any]:
    """Return a model's metadata."""
    card = model.card
    return {
        "name": card.name,
        "versions": [VERSION],
        "platform": _platform(model),
        "inputs": [_tensor(card.input)],
        "outputs": [_tensor(card.output)],
    }


def _platform(model: LoadedModel) -> str:
    """Return what Triton calls a model of this engine."""
    return "onnxruntime_onnx" if model.engine == "onnxruntime" else model.engine


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def configuration(model: LoadedModel, settings: Settings) -> dict[str, Any]:
    """Return a model's configuration. Its largest batch is the most images of one request."""
    card = model.card
    kind = "KIND_GPU" if model.predictor.device == "cuda" else "KIND_CPU"
    return {
        "name": card.name,
        "platform": _platform(model),
        "backend": model.engine,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": settings.max_images,
        "input": [_dimensions(card.input) | {"format": "FORMAT_NHWC"}],
        "output": [_dimensions(card.output) | {"label_filename": ""}],
        "instance_group": [{"name": card.name, "kind": kind, "count": settings.workers}],
        "dynamic_batching": {
            "preferred_batch_size": [settings.max_batch],
            "max_queue_delay_microseconds": 0,
        },
        "default_model_filename": "model.onnx",
        "parameters": {},
    }


def _dimensions(tensor: TensorSpec) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": f"TYPE_{tensor.datatype}",
        "dims": list(tensor.shape[1:]),
    }


def statistics(
    models: Iterable[LoadedModel], totals: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Return the statistics of models over all workers, since the server started.

    Args:
        models: the models.
        totals: :meth:`service.telemetry.metrics.Metrics.model_totals`.
    """
    return {
        "model_stats": [
            _statistics(model.card.name, totals.get(model.card.name, {})) for model in models
        ]
    }


def _statistics(name: str, totals: Mapping[str, float]) -> dict[str, Any]:
    def total(sample: str) -> float:
        return totals.get(f"cifar10_{sample}", 0.0)

    def duration(count: float, seconds: float = 0.0) -> dict[str, int]:
        return {"count": int(count), "ns": round(seconds * 1e9)}

    requests = total("model_requests_total")
    seconds, queued = total("model_request_seconds_total"), total("queue_seconds_sum")
    return {
        "name": name,
        "version": VERSION,
        "last_inference": round(total("model_last_run_timestamp_seconds") * 1e3),
        "inference_count": int(total("images_classified_total")),
        "execution_count": int(total("inference_seconds_count")),
        "inference_stats": {
            "success": duration(requests, seconds),
            "fail": duration(total("model_failures_total")),
            "queue": duration(requests, queued),
            # Images are decoded before they are queued, and answers are written after the run.
            # Clients expect the same count in all three.
            "compute_input": duration(requests),
            "compute_infer": duration(requests, max(0.0, seconds - queued)),
            "compute_output": duration(requests),
            "cache_hit": duration(0),
            "cache_miss": duration(0),
        },
        "batch_stats": [],
        "memory_usage": [],
        "response_stats": {},
    }


def index(models: ModelSet, *, only_ready: bool) -> list[dict[str, str]]:
    """Return the state of every model of this server."""
    entries = []
    for name in sorted(models.names):
        reason = models.why_unavailable(name)
        state = "READY" if reason is None else "UNAVAILABLE"
        if reason is None or not only_ready:
            entry = {"name": name, "version": VERSION, "state": state, "reason": reason or ""}
            entries.append(entry)
    return entries
