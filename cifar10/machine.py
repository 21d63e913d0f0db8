"""The machine as far as speed depends on it: usable CPU cores, CPU name and memory.

The one definition that serving, measuring and training share. Three things limit the cores of a
process on Linux: the CPUs it may run on (affinity, which cpusets set too), and the CPU time of its
control group and of each group above it (cgroup v2's ``cpu.max``, v1's ``cpu.cfs_quota_us``), which
is how ``docker run --cpus`` and Kubernetes limits arrive.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path, PurePosixPath
from typing import Final

CPU_INFORMATION: Final = Path("/proc/cpuinfo")
CGROUP_MEMBERSHIP: Final = Path("/proc/self/cgroup")
CGROUP_MOUNT: Final = Path("/sys/fs/cgroup")

_V1_CPU_FOLDERS: Final = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def usable_cpus() -> tuple[int, ...]:
    """Return the logical CPUs that this process may run on, ascending; all where the system does
    not say."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Return the number of whole cores that this process may use: at least 1, rounded down.

    Processes that together want more than their quota are stopped for the rest of each period
    (100 ms, as a rule), and answer late.
    """
    return max(1, int(min(len(usable_cpus()), cpu_quota())))


def cpu_name() -> str:
    """Return the processor's model name; the architecture where the system does not say."""
    with suppress(OSError):
        for line in CPU_INFORMATION.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def rounded_memory_gib(memory_bytes: int) -> int:
    """Return installed memory in whole GiB. The kernel reserves a little of it, a different amount
    after each update, so exact bytes do not identify a machine."""
    return round(memory_bytes / 2**30)


def cpu_quota(membership: Path = CGROUP_MEMBERSHIP, mount: Path = CGROUP_MOUNT) -> float:
    """Return the CPU time that this process's control groups allow, in cores; infinite without a
    limit, or where it cannot be read.

    Args:
        membership: file that lists the groups of this process.
        mount: folder of the group hierarchies.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return inf
    least = inf
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            for folder in _upwards(mount, path):
                least = min(least, _v2_quota(folder))
        elif "cpu" in controllers.split(","):
            for name in _V1_CPU_FOLDERS:
                for folder in _upwards(mount / name, path):
                    least = min(least, _v1_quota(folder))
    return least


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the group's folder and those above it, up to the root. Inside a container the path may
    be the host's, which does not exist there: then only the root, the container's own, counts."""
    group = PurePosixPath(path.lstrip("/"))
    for part in (group, *group.parents):
        yield root / part


def _v2_quota(folder: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            return int(quota) / int(period)
    return inf


def _v1_quota(folder: Path) -> float:
    with suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        if quota > 0 and period > 0:
            return quota / period
    return inf
