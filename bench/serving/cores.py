"""Separate CPUs for server and load generator, so that neither takes time from the other."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cifar10.errors import BenchError
from cifar10.machine import usable_cpus


@dataclass(frozen=True)
class Cores:
    """Logical CPUs of server and load generator."""

    server: int
    generator: int


def usable() -> tuple[int, ...]:
    """Logical CPUs that this process may use, ascending; none where processes cannot be pinned."""
    if sys.platform != "linux" or shutil.which("taskset") is None:
        return ()
    return usable_cpus()


def choose_cores() -> Cores:
    """The first and the last CPU that this process may use.

    Raises:
        BenchError: there are fewer than two, or processes cannot be pinned here.
    """
    available = usable()
    if len(available) < 2:
        message = (
            "comparing servers takes two CPUs, one for the server and one for the load generator, "
            "and `taskset` (util-linux) to keep them apart"
        )
        raise BenchError(message)
    return Cores(available[0], available[-1])


def on_cores(cores: Sequence[int]) -> tuple[str, ...]:
    """Beginning of a command that keeps it and its children on these CPUs."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process on one core meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
