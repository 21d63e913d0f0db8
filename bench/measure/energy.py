"""Energy in joules, where the machine counts it: RAPL for processors, NVML for NVIDIA GPUs.

Both count the whole package or GPU, idle power and neighbours included. Most virtual machines and
containers show neither: then there is no meter, and the report says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cifar10.predictor import CUDA_PROVIDER

POWERCAP: Final = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter of energy."""

    source: str
    read_joules: Callable[[], float]
    """Joules since some fixed moment."""
    wraps_at_joules: float | None = None
    """Where the counter starts again at 0."""

    def used(self, before: float, after: float) -> float:
        """Joules between two readings less than one turn of the counter apart."""
        if after < before and self.wraps_at_joules is not None:
            return after - before + self.wraps_at_joules
        return after - before


def find_meter(provider: str, powercap: Path = POWERCAP) -> Meter | None:
    """The meter of what executes ``provider``; None where there is none that may be read."""
    return _nvml() if provider == CUDA_PROVIDER else _rapl(powercap)


def _rapl(powercap: Path) -> Meter | None:
    """The processor packages of the kernel's power capping interface, ``energy_uj``.

    Source: Documentation/power/powercap/powercap.rst of the Linux kernel. Since CVE-2020-8694 the
    counters may be read by root only.
    """
    packages = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            if (zone / "name").read_text().startswith("package"):
                int((zone / "energy_uj").read_text())
                packages.append(zone)
        wraps = [int((zone / "max_energy_range_uj").read_text()) for zone in packages]
    except (OSError, ValueError):
        return None
    if not packages:
        return None

    def read() -> float:
        return sum(int((zone / "energy_uj").read_text()) for zone in packages) / 1e6

    # Several packages wrap one by one; one turn is right for the first of them.
    return Meter("RAPL", read, wraps[0] / 1e6)


def _nvml() -> Meter | None:
    """The first GPU's counter, in mJ (from Volta on)."""
    try:
        import pynvml as nvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        device = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except nvml.NVMLError:
        return None
    return Meter("NVML", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3)
