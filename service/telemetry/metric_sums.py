"""Merge the metric files of dead workers into one file of sums per kind of metric.

A counter must not go down when a worker ends: Prometheus would take that for a restart. So
``prometheus_client`` keeps the files of every process that ever counted, and in a crash loop these
fill the shared memory. Here they are added up into one file and removed.

Meanwhile a lock on the folder keeps readers out, which would otherwise count a worker twice or not
at all.
"""

import os
import re
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

READ_SECONDS: Final = 5.0
"""Longest time that a reader waits while files are added up, which takes some milliseconds."""

_OF_A_PROCESS: Final = re.compile(r"(counter|histogram|summary)_(\d+)\.db")
_LOOK_SECONDS: Final = 0.005


@contextmanager
def whole_files(folder: Path) -> Iterator[None]:
    """Prevent the files of ``folder`` from being added up while they are read.

    Raises:
        OSError: the folder does not exist, or was locked for :data:`READ_SECONDS`.
    """
    until = time.monotonic() + READ_SECONDS
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while not _lock(descriptor):
            if time.monotonic() > until:
                message = f"the metrics in {folder} were locked for {READ_SECONDS:g} seconds"
                raise TimeoutError(message)
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def add_up_dead(folder: Path, is_alive: Callable[[int], bool]) -> bool:
    """Add the counters of dead processes to the sums and remove their files. Never blocks.

    Returns:
        Whether it was done; False if the files are being read or the disk is full.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # the folder is gone
    try:
        if not _lock(descriptor, exclusive=True):
            return False
        dead: defaultdict[str, list[Path]] = defaultdict(list)
        for path in folder.iterdir():
            match = _OF_A_PROCESS.fullmatch(path.name)
            if match and not is_alive(int(match[2])):
                dead[match[1]].append(path)
        for kind, paths in dead.items():
            _add_up(folder / f"{kind}_ended.db", paths)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int, exclusive: bool = False) -> bool:
    import fcntl  # not on Windows

    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _add_up(sums: Path, dead: list[Path]) -> None:
    totals: defaultdict[str, float] = defaultdict(float)
    read = []
    for path in (sums, *dead):
        try:
            numbers = list(_numbers_in(path))
        except (RuntimeError, ValueError, struct.error):
            continue  # damaged; left unchanged
        for key, value in numbers:
            totals[key] += value
        if path != sums:
            read.append(path)
    new = sums.with_suffix(".new")
    try:
        _write(new, totals)
        new.replace(sums)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    # If the process is killed here, numbers are counted twice, but counters never go down.
    for path in read:
        path.unlink(missing_ok=True)


def _numbers_in(path: Path) -> Iterator[tuple[str, float]]:
    if path.exists() and path.stat().st_size:  # empty if its process died before allocating it
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            yield key, value


def _write(path: Path, numbers: dict[str, float]) -> None:
    """Write a file of numbers in ``prometheus_client``'s format, with its space allocated."""
    entries = []
    for key, value in numbers.items():
        text = key.encode()
        padded = text + b" " * (8 - (len(text) + 4) % 8)
        entries.append(struct.pack(f"i{len(padded)}sdd", len(text), padded, value, 0.0))
    content = b"".join(entries)
    path.write_bytes(struct.pack("ii", 8 + len(content), 0) + content)
