"""How many CPU cores this process may use: fewer than the machine has, in most containers.

Three things limit it on Linux: the CPUs that it may run on (affinity, which cpusets set too), and
the CPU time that its control group and each group above it has (cgroup v2's ``cpu.max``, v1's
``cpu.cfs_quota_us``), which is how ``docker run --cpus`` and Kubernetes limits arrive.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path, PurePosixPath
from typing import Final

CGROUP_MEMBERSHIP: Final = Path("/proc/self/cgroup")
CGROUP_MOUNT: Final = Path("/sys/fs/cgroup")

_V1_CPU_FOLDERS: Final = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def usable_cores() -> int:
    """Whole cores, at least 1; a part of one is not counted.

    Processes that together want more than their quota are stopped for the rest of each period (of
    100 ms, as a rule), and answer late.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, int(min(allowed, cpu_quota())))


def cpu_quota(membership: Path = CGROUP_MEMBERSHIP, mount: Path = CGROUP_MOUNT) -> float:
    """Cores' worth of CPU time that this process's control groups have; infinite without a limit,
    or where it cannot be read.

    Args:
        membership: which groups this process is in.
        mount: where the groups are.
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
    """The group's folder and those above it, to the root. Inside a container the path may be the
    host's, which is not there: then only the root, which is the container's own, counts."""
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
