"""Which CPU is the server's and which the load generator's, so that neither takes time from the
other."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cifar10.errors import BenchError


@dataclass(frozen=True)
class Cores:
    """Which logical CPU is whose."""

    server: int
    generator: int


def usable() -> tuple[int, ...]:
    """The logical CPUs that this process may use, ascending; none where a system does not pin."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None or shutil.which("taskset") is None:
        return ()
    return tuple(sorted(affinity(0)))


def choose_cores() -> Cores:
    """The first and the last that this process may use.

    Raises:
        BenchError: fewer than two, or a system that does not pin.
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
    """What a command is to begin with so that it and its children have only those."""
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
