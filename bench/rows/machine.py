"""What a measurement was made on: the machine and the versions of what ran.

A latency says nothing without its machine. Nothing here identifies an owner: no host name, user,
address or path is read.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

PACKAGES: Final = ("onnxruntime", "numpy", "pillow", "bentoml", "locust", "psutil", "matplotlib")

_NVIDIA_SMI: Final = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Machine:
    """One machine in one state, as far as speed depends on it."""

    cpu: str
    physical_cores: int
    logical_cores: int
    """Those this process may use."""
    memory_bytes: int
    operating_system: str
    kernel: str
    architecture: str
    gpus: tuple[str, ...]
    """Names, as nvidia-smi gives them; empty without one."""
    gpu_driver: str | None
    governor: str | None
    """The CPU's frequency policy where it can be read: ``performance``, ``powersave`` …"""
    virtualization: str | None
    """``container``, ``virtual machine`` or both, where there are signs of it."""

    @property
    def name(self) -> str:
        """A short, stable folder name: from the hardware only, so that a new kernel keeps it."""
        words = [self.cpu, f"{self.logical_cores} cores", *sorted(set(self.gpus))]
        readable = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
        hardware = (self.cpu, self.logical_cores, round(self.memory_bytes / 2**30), self.gpus)
        return f"{readable[:48].strip('-')}-{_short_hash(hardware)[:6]}"

    @property
    def fingerprint(self) -> str:
        """12 hex digits over every field: what a row refers to."""
        return _short_hash(asdict(self))


def read_machine() -> Machine:
    """Look at the machine this runs on. What cannot be read is None or ``"unknown"``."""
    gpus, driver = _nvidia_gpus()
    return Machine(
        cpu=_cpu_model(),
        physical_cores=int(psutil.cpu_count(logical=False) or 0),
        logical_cores=usable_cores(),
        memory_bytes=int(psutil.virtual_memory().total),
        operating_system=_operating_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        gpus=gpus,
        gpu_driver=driver,
        governor=_first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        virtualization=_virtualization(),
    )


def read_versions() -> dict[str, str]:
    """Python's version and those of the installed packages that a measurement depends on.

    Package ``onnxruntime`` is installed under several names; the one found is the one named.
    """
    found = {"python": platform.python_version()}
    for package in ("onnxruntime-gpu", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.version()}"


def _nvidia_gpus() -> tuple[tuple[str, ...], str | None]:
    try:
        answer = subprocess.run(  # noqa: S603 - a constant command
            _NVIDIA_SMI, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return (), None
    lines = [line.split(",") for line in answer.stdout.strip().splitlines() if "," in line]
    driver = lines[0][1].strip() if lines else None
    return tuple(line[0].strip() for line in lines), driver


def _virtualization() -> str | None:
    signs = []
    cgroup = _first_line(Path("/proc/1/cgroup")) or ""
    if Path("/.dockerenv").exists() or re.search(r"docker|kubepods|containerd|lxc", cgroup):
        signs.append("container")
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = ""
    if re.search(r"^flags.*\bhypervisor\b", flags, re.MULTILINE):
        signs.append("virtual machine")
    return ", ".join(signs) or None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None
