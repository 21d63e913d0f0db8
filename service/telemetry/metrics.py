"""Metrics for Prometheus. Every label has a fixed set of values; none comes from a request.

With several workers, each writes its own files into ``PROMETHEUS_MULTIPROC_DIR``, this server's
private folder (:mod:`service.workers.private_folder`). The worker that answers ``/metrics`` adds
them up.
"""

import errno
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.models import LoadedModel
from service.telemetry.gpu import GpuCollector, find_gpus, register_gpus
from service.telemetry.logs import on_dropped_lines
from service.telemetry.metric_files import prepare_metric_files
from service.telemetry.metric_sums import add_up_dead, whole_files
from service.telemetry.tally import Tally

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
    requests: Counter
    request_seconds: Counter
    failures: Counter
    last_run: Gauge
    tally: Tally
    """Adds up what each request changes."""


class Metrics:
    """Collectors of one worker process.

    Looking up a labelled child takes a few microseconds, so this class caches the children that
    every request needs.
    """

    def __init__(self) -> None:
        prepare_metric_files()
        registry = CollectorRegistry()
        self._registry = registry
        self._gpus: GpuCollector | None = None
        self._searched_gpus = False
        """Whether GPUs have been searched for. Done at the first request for metrics, because NVML
        does not survive a fork."""
        self._answers: dict[tuple[str, int], Counter] = {}
        self._times: dict[str, Histogram] = {}
        self._models: dict[str, ModelMetrics] = {}
        self.tally = Tally()
        """Metrics of requests that are answered without a task, and of the models' runs."""
        self._requests = Counter(
            "cifar10_requests",
            "Requests answered; code 499 is a client that left before its body was complete.",
            ("route", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "cifar10_request_seconds",
            "Time from a request's headers to its answer.",
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
            "Time to decode an image to a model's input.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.image_bytes = Counter(
            "cifar10_image_bytes",
            "Bytes of the images decoded; cifar10_decode_seconds counts the images.",
            registry=registry,
        )
        self._inference_seconds = Histogram(
            "cifar10_inference_seconds",
            "Time of one run of a model.",
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
            "Images waiting for a run of their model.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._queue_seconds = Histogram(
            "cifar10_queue_seconds",
            "Time from decoding a request's images to the start of their run.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._model_requests = Counter(
            "cifar10_model_requests",
            "Requests that a model has answered; one of several batches counts once for each.",
            ("model",),
            registry=registry,
        )
        self._model_request_seconds = Counter(
            "cifar10_model_request_seconds",
            "Time from decoding a request's images to their probabilities, summed over requests.",
            ("model",),
            registry=registry,
        )
        self._model_failures = Counter(
            "cifar10_model_failures",
            "Requests that found their model's queue full, or whose run failed or came too late.",
            ("model",),
            registry=registry,
        )
        self._last_run = Gauge(
            "cifar10_model_last_run_timestamp_seconds",
            "Time of a model's last run, in seconds since 1970.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.rejected = Counter(
            "cifar10_rejected",
            "Requests refused, by kind of problem.",
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
            "Loaded models and the execution provider that actually runs each.",
            ("model", "sha256", "device", "provider"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def answered(self, route: str, status: int) -> None:
        """Count one request."""
        self._counter_of(route, status).inc()

    def took(self, route: str, seconds: float) -> None:
        """Observe how long one request took."""
        self._times_of(route).observe(seconds)

    def decoded(self, size: int, seconds: float) -> None:
        """Tally an image of ``size`` bytes that was decoded in ``seconds``."""
        self.tally.observe(self.decode_seconds, seconds)
        self.tally.add(self.image_bytes, size)

    def began(self) -> None:
        """Tally a request that is in flight from now on."""
        self.tally.add(self.in_flight)
        self.tally.write_soon()

    def ended(self, route: str, status: int, seconds: float) -> None:
        """Tally the end of a request that was tallied as in flight."""
        self.tally.add(self.in_flight, -1.0)
        self.tally.add(self._counter_of(route, status))
        self.tally.observe(self._times_of(route), seconds)

    def _counter_of(self, route: str, status: int) -> Counter:
        key = route, status
        counter = self._answers.get(key)
        if counter is None:
            counter = self._answers[key] = self._requests.labels(route, str(status))
        return counter

    def _times_of(self, route: str) -> Histogram:
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = self._request_seconds.labels(route)
        return times

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
                self._model_requests.labels(name),
                self._model_request_seconds.labels(name),
                self._model_failures.labels(name),
                self._last_run.labels(name),
                self.tally,
            )
        return found

    def model_loaded(self, model: LoadedModel, is_loaded: bool = True) -> None:
        """Record that a model is in service, and where it runs; or that it no longer is."""
        predictor = model.predictor
        self.model_info.labels(
            model.card.name, model.card.sha256, predictor.device, predictor.provider
        ).set(is_loaded)

    def render(self) -> bytes:
        """Return the metrics of all workers in the text exposition format.

        Raises:
            FileNotFoundError: the workers' shared folder has been removed.
        """
        if not self._searched_gpus:
            self._searched_gpus = True
            self._gpus = find_gpus()
            register_gpus(self._registry, self._gpus)
        with self._all_workers() as registry:
            if registry is not self._registry:
                register_gpus(registry, self._gpus)  # identical in all workers, so not summed
            return generate_latest(registry)

    def model_totals(self) -> dict[str, dict[str, float]]:
        """Return the numbers of each model, summed over all workers: model → sample → value.
        Samples are named as in :meth:`render`; a histogram's buckets are left out.

        Raises:
            FileNotFoundError: the workers' shared folder has been removed.
        """
        totals: defaultdict[str, dict[str, float]] = defaultdict(dict)
        with self._all_workers() as registry:
            for metric in registry.collect():
                for sample in metric.samples:
                    if set(sample.labels) == {"model"}:
                        totals[sample.labels["model"]][sample.name] = sample.value
        return totals

    @contextmanager
    def _all_workers(self) -> Iterator[CollectorRegistry]:
        """Yield a registry of the metrics of all workers, without those of GPUs."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            yield self._registry
            return
        if not Path(folder).is_dir():
            raise FileNotFoundError(errno.ENOENT, "the metrics folder has been removed", folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        with whole_files(Path(folder)) if os.name == "posix" else nullcontext():
            yield registry


def forget_dead_workers() -> bool:
    """Remove the live gauges of workers that were killed before they could remove their own, and
    add up their counters.

    Returns:
        Whether everything was done; if not, try again later.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None or os.name != "posix":  # elsewhere, signal 0 does not test for a process
        return True
    for path in Path(directory).glob("gauge_live*"):  # none where the folder is gone
        match = _LIVE_GAUGE.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            mark_process_dead(int(match[1]))  # type: ignore[no-untyped-call]
    return add_up_dead(Path(directory), _is_running)


def forget_this_worker() -> None:
    """Remove this worker's live gauges; called when it ends."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
