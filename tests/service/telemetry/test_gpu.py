"""Tests of GPU-specific behaviour that can be tested without a GPU."""

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cifar10.image_layout import TILE
from service.inference import Inference
from service.models import LoadedModel, predictor_options
from service.settings import Settings
from service.telemetry.gpu import GpuCollector, find_gpus
from service.telemetry.metrics import Metrics


class Nvml:
    """Fake NVML with two GPUs, of which the second does not respond."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if number:
            message = "GPU is lost"
            raise self.NVMLError(message)
        return number

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=3 << 30, total=80 << 30)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=42)


@pytest.mark.parametrize("several_workers", [False, True])
def test_gpus_are_in_the_metrics(monkeypatch, tmp_path, several_workers):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    if several_workers:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics = Metrics()
    for _ in range(2):
        lines = metrics.render().decode().splitlines()
        shown = [line for line in lines if line.startswith("cifar10_gpu")]
        assert shown == [
            'cifar10_gpu_memory_used_bytes{gpu="0"} 3.221225472e+09',
            'cifar10_gpu_memory_total_bytes{gpu="0"} 8.589934592e+10',
            'cifar10_gpu_utilization_ratio{gpu="0"} 0.42',
        ]


@pytest.mark.parametrize("missing", ["package", "driver"])
def test_without_a_gpu_there_are_no_gpu_metrics(monkeypatch, missing):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        nvml = Nvml()

        def fail() -> None:
            raise nvml.NVMLError

        monkeypatch.setattr(nvml, "nvmlInit", fail)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert find_gpus() is None
    assert b"cifar10_gpu" not in Metrics().render()


def test_a_later_failure_of_nvml_does_not_fail_the_scrape(monkeypatch):
    nvml = Nvml()

    def fail() -> int:
        raise nvml.NVMLError

    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", fail)
    assert all(not family.samples for family in GpuCollector(nvml).collect())


@pytest.mark.parametrize(
    ("max_batch", "buckets"), [(32, (1, 8, 32)), (8, (1, 8)), (4, (1, 4)), (1, (1,))]
)
def test_the_buckets_end_with_the_largest_batch(max_batch, buckets):
    options = predictor_options(Settings(max_batch=max_batch, cuda_memory_bytes=1 << 30))
    assert options.cuda_buckets == buckets
    assert options.cuda_memory_bytes == 1 << 30


class Predictor:
    """Predictor that records the threads it runs in."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ran_in: list[str] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.ran_in.append(threading.current_thread().name.partition("_")[0])
        return np.full((len(images), 10), 0.1, np.float32)

    def warm_up(self, sizes: list[int]) -> None:
        for size in sizes:
            self.predict(np.zeros((size, 32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("device", "warm_up", "request_runs_in"), [("cuda", 6, "predict"), ("cpu", 0, "MainThread")]
)
def test_a_gpu_is_used_from_one_warmed_up_thread(device, warm_up, request_runs_in):
    """The event loop does not wait for the device, however fast the model is."""
    predictor = Predictor(device)
    card = SimpleNamespace(name="tiny", target=TILE)
    model = LoadedModel(cast(Any, card), cast(Any, predictor), 0.0, 32)

    async def main() -> None:
        inference = Inference(Settings(), Metrics())
        await asyncio.to_thread(inference.warm_up_thread, model)
        assert predictor.ran_in == ["predict"] * warm_up
        deadline = asyncio.get_running_loop().time() + 30
        await inference.predict(model, np.zeros((1, 32, 32, 3), np.uint8), deadline)
        inference.stop()

    asyncio.run(main())
    assert predictor.ran_in[-1] == request_runs_in
    assert len(predictor.ran_in) == warm_up + 1
