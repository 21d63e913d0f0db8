"""Metrics for Prometheus. Every label has a fixed set of values: none comes from a request.

With several workers each writes its own files into ``PROMETHEUS_MULTIPROC_DIR``, this server's
private folder (:mod:`service.workers.private_folder`); whichever worker is asked adds them up.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.models import LoadedModel
from service.telemetry.gpu import GpuCollector, find_gpus, register_gpus
from service.telemetry.logs import on_dropped_lines
from service.telemetry.metric_files import allocate_metric_files
from service.telemetry.metric_sums import add_up_dead, whole_files

_SECONDS: Final = (
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_LIVE_GAUGE = re.compile(r"gauge_live\w*_(\d+)\.db")


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Collectors of one model."""

    classified: Counter
    inference_seconds: Histogram
    batch_images: Histogram
    queue_images: Gauge
    queue_seconds: Histogram


class Metrics:
    """Collectors of one worker process.

    A labelled collector takes a few microseconds to look a child up; the children that every
    request needs are kept here.
    """

    def __init__(self) -> None:
        allocate_metric_files()
        registry = CollectorRegistry()
        self._registry = registry
        self._gpus: GpuCollector | None = None
        self._asked_for_gpus = False
        """GPUs are looked for when metrics are first asked for: NVML does not survive a fork."""
        self._answers: dict[tuple[str, int], Counter] = {}
        self._times: dict[str, Histogram] = {}
        self._models: dict[str, ModelMetrics] = {}
        self._requests = Counter(
            "cifar10_requests",
            "Requests answered; code 499 is a client that left before its body was complete.",
            ("route", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "cifar10_request_seconds",
            "From a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "cifar10_requests_in_flight",
            "Requests being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._classified = Counter(
            "cifar10_images_classified",
            "Images classified.",
            ("model",),
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "cifar10_decode_seconds",
            "From an image's bytes to its 32 × 32 tile.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.image_bytes = Counter(
            "cifar10_image_bytes",
            "Bytes of the images that were decoded; cifar10_decode_seconds has their number.",
            registry=registry,
        )
        self._inference_seconds = Histogram(
            "cifar10_inference_seconds",
            "One run of a model.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_images = Histogram(
            "cifar10_batch_images",
            "Images in one run of a model.",
            ("model",),
            buckets=_IMAGES,
            registry=registry,
        )
        self._queue_images = Gauge(
            "cifar10_queue_images",
            "Images that wait for a run of their model.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queue_seconds = Histogram(
            "cifar10_queue_seconds",
            "From a request's images being decoded to the start of their run.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "cifar10_rejected",
            "Requests refused, by the kind of the problem document.",
            ("reason",),
            registry=registry,
        )
        log_lines_dropped = Counter(
            "cifar10_log_lines_dropped",
            "Log lines dropped because the log was blocked, full or closed.",
            registry=registry,
        )
        on_dropped_lines(log_lines_dropped.inc)
        self.model_info = Gauge(
            "cifar10_model_info",
            "Models that are loaded, and the execution provider that really runs them.",
            ("model", "sha256", "device", "provider"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def answered(self, route: str, status: int) -> None:
        """Count one request."""
        key = route, status
        counter = self._answers.get(key)
        if counter is None:
            counter = self._answers[key] = self._requests.labels(route, str(status))
        counter.inc()

    def took(self, route: str, seconds: float) -> None:
        """Observe how long one request took."""
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = self._request_seconds.labels(route)
        times.observe(seconds)

    def of_model(self, name: str) -> ModelMetrics:
        """Return the collectors of a loaded model."""
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelMetrics(
                self._classified.labels(name),
                self._inference_seconds.labels(name),
                self._batch_images.labels(name),
                self._queue_images.labels(name),
                self._queue_seconds.labels(name),
            )
        return found

    def model_loaded(self, model: LoadedModel, is_there: bool = True) -> None:
        """Record which model runs where, or that it no longer does."""
        predictor = model.predictor
        self.model_info.labels(
            model.card.name, model.card.sha256, predictor.device, predictor.provider
        ).set(is_there)

    def render(self) -> bytes:
        """Return the metrics of all workers in the text exposition format.

        Raises:
            FileNotFoundError: the folder that they share has been removed.
        """
        if not self._asked_for_gpus:
            self._asked_for_gpus = True
            self._gpus = find_gpus()
            register_gpus(self._registry, self._gpus)
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self._registry)
        if not Path(folder).is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder of metrics has been removed", folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        register_gpus(registry, self._gpus)  # the same for all workers, so not added up
        if os.name != "posix":
            return generate_latest(registry)
        with whole_files(Path(folder)):
            return generate_latest(registry)


def forget_dead_workers() -> bool:
    """Remove the live gauges of workers that were killed before they could do it themselves, and
    add their counters up.

    Returns:
        Whether all of it is done; where not, it is worth another try.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None or os.name != "posix":  # elsewhere, signal 0 is not a question
        return True
    for path in Path(directory).glob("gauge_live*"):  # none where the folder is gone
        match = _LIVE_GAUGE.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            mark_process_dead(int(match[1]))  # type: ignore[no-untyped-call]
    return add_up_dead(Path(directory), _alive)


def forget_this_worker() -> None:
    """Remove this worker's live gauges, when it ends."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
