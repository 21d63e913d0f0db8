"""Files in which workers share their metrics, with room that is really allocated.

``prometheus_client`` maps sparse files into memory. Where the disk is full, the first write to a
page that has no room yet ends the process with SIGBUS, and so each worker that replaces it. Here
room is allocated before it is written to, where ``ENOSPC`` can be caught: a worker without room
keeps its numbers to itself and answers.
"""

import logging
import mmap
import os
import threading
from pathlib import Path
from typing import Any, Final

import prometheus_client.values
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

INITIAL_BYTES: Final = 4096
"""A worker that ends leaves its files for the sums: most have few numbers, so they begin small."""

_LENGTH_BYTES: Final = 4
_NUMBERS_BYTES: Final = 16


class AllocatedDict(MmapedDict):
    """A ``prometheus_client`` file of numbers that never grows beyond what is allocated.

    Without room, its numbers go to private memory: they are missing from the sums over all workers,
    and nothing else changes.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if read_mode:
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
            return
        try:
            _allocate(filename)
            super().__init__(filename)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            self._f: Any = None
            self._fname = filename
            self._capacity = INITIAL_BYTES
            self._m: mmap.mmap = mmap.mmap(-1, INITIAL_BYTES)
            self._positions: dict[str, int] = {}
            self._used = 8
            self._m[:4] = self._used.to_bytes(4, "little")
            self._leave_the_sums(error)

    def _init_value(self, key: str) -> None:
        """Add a number, after making room for it."""
        padded = len(key.encode()) + 8  # at most; the key is padded to a multiple of 8 bytes
        needed = self._used + _LENGTH_BYTES + padded + _NUMBERS_BYTES
        if needed > self._capacity:
            self._grow(needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, needed: int) -> None:
        capacity = self._capacity
        while capacity < needed:
            capacity *= 2
        if self._f is not None:
            try:
                os.posix_fallocate(self._f.fileno(), 0, capacity)
                self._m = mmap.mmap(self._f.fileno(), capacity)
                self._capacity = capacity
                return
            except OSError as error:
                self._f.close()
                self._f = None
                self._leave_the_sums(error)
        before = self._m
        self._m = mmap.mmap(-1, capacity)
        self._m[: self._used] = before[: self._used]
        self._capacity = capacity

    def _leave_the_sums(self, error: Exception) -> None:
        # Counters stay as they were last written: were they gone, Prometheus would take the lower
        # sum for a restart and add up everything again. A gauge must not stand still.
        name = Path(self._fname)
        if name.name.startswith("gauge"):
            name.unlink(missing_ok=True)
        message = "metrics of this worker are missing from the sums: %s: %s"
        arguments = (message, name.name, error)
        # In a thread: prometheus_client's lock is held here, and counting a log line that is
        # dropped takes it too.
        threading.Thread(target=logger.error, args=arguments, daemon=True).start()

    def close(self) -> None:
        """Close the file, if there is one, and the memory."""
        if self._f is not None:
            super().close()  # type: ignore[no-untyped-call]
        else:
            self._m.close()


def _allocate(filename: str) -> None:
    """Make the file, with room for its first numbers.

    Raises:
        OSError: no room, or no folder.
    """
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size == 0:
            os.posix_fallocate(descriptor, 0, INITIAL_BYTES)
    except OSError:
        os.unlink(filename)  # noqa: PTH108 — an empty file would be read as one that is damaged
        raise
    finally:
        os.close(descriptor)


def allocate_metric_files() -> None:
    """Let ``prometheus_client`` allocate the files that it maps. Before the first metric."""
    if hasattr(os, "posix_fallocate"):
        setattr(prometheus_client.values, "MmapedDict", AllocatedDict)  # noqa: B010 — not exported
