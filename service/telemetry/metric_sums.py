"""Sums of what dead workers counted: one file of each kind, in the place of theirs.

A counter must not go down when a worker ends: Prometheus would take that for a restart. So
``prometheus_client`` keeps the files of every process that ever counted, and in a crash loop they
fill the memory they are in. Here they are added up into one file and removed.

A lock on their folder keeps readers out meanwhile, who would count a worker twice or not at all.
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
"""How long a reader waits while files are added up, which takes some milliseconds."""

_OF_A_PROCESS: Final = re.compile(r"(counter|histogram|summary)_(\d+)\.db")
_LOOK_SECONDS: Final = 0.005


@contextmanager
def whole_files(folder: Path) -> Iterator[None]:
    """Keep the files of ``folder`` from being added up while they are read.

    Raises:
        OSError: there is no such folder, or it was locked for :data:`READ_SECONDS`.
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
    """Add the counters of dead processes to the sums and remove their files; never wait.

    Returns:
        Whether it is done; False where somebody reads, or where there is no room.
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
    import fcntl  # not everywhere

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
            continue  # damaged: it stays as it is
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
    # A process killed here leaves numbers that are counted twice: too many, but never fewer.
    for path in read:
        path.unlink(missing_ok=True)


def _numbers_in(path: Path) -> Iterator[tuple[str, float]]:
    if path.exists() and path.stat().st_size:  # empty: its process died before it had room
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            yield key, value


def _write(path: Path, numbers: dict[str, float]) -> None:
    """Write a file of numbers as ``prometheus_client`` lays it out, into allocated room."""
    entries = []
    for key, value in numbers.items():
        text = key.encode()
        padded = text + b" " * (8 - (len(text) + 4) % 8)
        entries.append(struct.pack(f"i{len(padded)}sdd", len(text), padded, value, 0.0))
    content = b"".join(entries)
    path.write_bytes(struct.pack("ii", 8 + len(content), 0) + content)
