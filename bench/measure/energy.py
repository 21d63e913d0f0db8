"""Energy in joules, where the machine measures it: RAPL for CPUs, NVML for NVIDIA GPUs.

Both count the whole package or GPU, including idle power and other processes. Most virtual machines
and containers expose neither; the report then says that there is no meter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cifar10.predictor import CUDA_PROVIDER

POWERCAP: Final = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A cumulative energy counter."""

    source: str
    read_joules: Callable[[], float]
    """Returns the joules since some fixed time."""
    wraps_at_joules: float | None = None
    """Value in joules at which the counter wraps to 0."""

    def used(self, before: float, after: float) -> float:
        """Return the joules between two readings that are less than one wrap apart."""
        if after < before and self.wraps_at_joules is not None:
            return after - before + self.wraps_at_joules
        return after - before


def find_meter(provider: str, powercap: Path = POWERCAP) -> Meter | None:
    """Return the energy meter for ``provider``, or None if none is readable."""
    return _nvml() if provider == CUDA_PROVIDER else _rapl(powercap)


def _rapl(powercap: Path) -> Meter | None:
    """Return a meter for the CPU packages in the kernel's power capping interface, ``energy_uj``.

    Source: Documentation/power/powercap/powercap.rst of the Linux kernel. Since CVE-2020-8694 only
    root may read the counters.
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

    # Packages wrap one by one; correcting one wrap is right for the first of them.
    return Meter("RAPL", read, wraps[0] / 1e6)


def _nvml() -> Meter | None:
    """Return a meter for the first GPU's counter, in mJ (Volta and later)."""
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
