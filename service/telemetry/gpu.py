"""Metrics of NVIDIA GPUs, memory and utilization, read whenever metrics are asked for.

Read through NVML, the driver's own library, by the package ``nvidia-ml-py``. Where that, the
driver or the GPU is missing, there are no such metrics.
"""

import logging
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

logger = logging.getLogger(__name__)


class GpuCollector:
    """A Prometheus collector of all GPUs that NVML sees, whichever of them this server uses.

    Args:
        nvml: the module ``pynvml``, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the families without values, so that registering asks no GPU."""
        return list(_families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families; a GPU that does not answer is left out."""
        used, total, busy = families = _families()
        for number in range(self._count()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(number)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                shares = self._nvml.nvmlDeviceGetUtilizationRates(handle)
            except self._nvml.NVMLError as error:
                logger.warning("GPU %d cannot be read: %s", number, error)
                continue
            labels = [str(number)]
            used.add_metric(labels, memory.used)
            total.add_metric(labels, memory.total)
            busy.add_metric(labels, shares.gpu / 100)
        yield from families

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            logger.warning("NVML lists no GPUs: %s", error)
            return 0


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            "cifar10_gpu_memory_used_bytes", "GPU memory in use, by anybody.", labels=("gpu",)
        ),
        GaugeMetricFamily("cifar10_gpu_memory_total_bytes", "GPU memory.", labels=("gpu",)),
        GaugeMetricFamily(
            "cifar10_gpu_utilization_ratio",
            "Share of NVML's last sample period in which a kernel ran.",
            labels=("gpu",),
        ),
    )


def find_gpus() -> GpuCollector | None:
    """Return a collector; None without NVML."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return None
    return GpuCollector(pynvml)


def register_gpus(registry: CollectorRegistry, gpus: GpuCollector | None) -> None:
    """Add the collector to ``registry``, if there is one."""
    if gpus is not None:
        registry.register(gpus)
