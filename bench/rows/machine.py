"""Identify the machine of a measurement and the software versions.

A latency is meaningless without its machine. The data do not identify an owner: no host name, user,
address or path is read.
"""

import hashlib
import json
import os
import platform
import re
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Final

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT
from cifar10.machine import cpu_name, rounded_memory_gib, usable_cores

PACKAGES: Final = (
    "onnxruntime-gpu", "onnxruntime", "openvino", "numpy", "pillow", "bentoml", "locust", "psutil",
)  # fmt: skip
"""Packages that affect measurements; ONNX Runtime is installed under either name."""


@dataclass(frozen=True, config=STRICT)
class Machine:
    """State of one machine, as far as it affects speed."""

    cpu: str
    physical_cores: int
    logical_cores: int
    """Whole cores that this process may use, by affinity and control-group quota."""
    memory_bytes: int
    operating_system: str
    kernel: str
    architecture: str
    gpus: tuple[str, ...]
    """GPU names as given by the driver; empty without a GPU."""
    gpu_driver: str | None
    governor: str | None
    """Frequency governor of the CPU, if readable: ``performance``, ``powersave`` …"""
    virtualization: str | None
    """``container``, ``virtual machine`` or both, if detected."""

    @property
    def memory_gib(self) -> int:
        """Memory in GiB, rounded because the exact size changes between boots."""
        return rounded_memory_gib(self.memory_bytes)

    @property
    def identity(self) -> str:
        """Hash of the hardware, 12 hex digits, to which a row refers.

        A reboot, a new kernel or a new driver does not change it.
        """
        return _short_hash((self.cpu, self.logical_cores, self.memory_gib, self.gpus))

    @property
    def state(self) -> str:
        """Hash of all fields, 12 hex digits, to which rows before November 2026 ended refer."""
        return _short_hash(asdict(self))

    @property
    def name(self) -> str:
        """Folder name of this machine's results: readable, and unique by its identity."""
        words = [self.cpu, f"{self.logical_cores} cores", *sorted(set(self.gpus))]
        readable = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
        return f"{readable[:48].strip('-')}-{self.identity[:6]}"


def read_machine() -> Machine:
    """Inspect this machine. Values that cannot be read are None or ``"unknown"``."""
    gpus, driver = _nvidia_gpus()
    return Machine(
        cpu=cpu_name(),
        physical_cores=_physical_cores(),
        logical_cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        operating_system=_operating_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        gpus=gpus,
        gpu_driver=driver,
        governor=_first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        virtualization=_virtualization(),
    )


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of each of :data:`PACKAGES` that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _physical_cores() -> int:
    """Return the number of cores, counting hyper-threads once; 0 if unknown."""
    processors = [
        tuple(re.findall(r"^(?:physical id|core id)\s*:\s*(\d+)", one, re.MULTILINE))
        for one in _cpuinfo().split("\n\n")
    ]
    return len({one for one in processors if one})


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.version()}"


def _nvidia_gpus() -> tuple[tuple[str, ...], str | None]:
    """Return the names of the GPUs and the driver's version; nothing without library or driver."""
    try:
        import pynvml  # type: ignore[import-untyped]  # of the extra `cuda`

        pynvml.nvmlInit()
    except Exception:
        return (), None
    handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
    names = tuple(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
    return names, str(pynvml.nvmlSystemGetDriverVersion()) if names else None


def _virtualization() -> str | None:
    signs = []
    cgroup = _first_line(Path("/proc/1/cgroup")) or ""
    if Path("/.dockerenv").exists() or re.search(r"docker|kubepods|containerd|lxc", cgroup):
        signs.append("container")
    if re.search(r"^flags.*\bhypervisor\b", _cpuinfo(), re.MULTILINE):
        signs.append("virtual machine")
    return ", ".join(signs) or None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None
