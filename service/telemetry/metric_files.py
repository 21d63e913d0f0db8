"""Memory-mapped files in which workers share metrics, with disk space allocated in advance.

``prometheus_client`` maps sparse files into memory. On a full disk, the first write to an
unallocated page kills the process with SIGBUS, and so every replacement worker. Here disk space is
allocated before it is written to, so that ``ENOSPC`` can be caught: a worker without space keeps
its metrics private and keeps serving.
"""

import logging
import mmap
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final

import prometheus_client.values
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

INITIAL_BYTES: Final = 4096
"""Initial file size. Small, because most files hold few numbers, and ended workers leave theirs for
the sums."""

_LENGTH_BYTES: Final = 4
_NUMBERS_BYTES: Final = 16


class AllocatedDict(MmapedDict):
    """A ``prometheus_client`` metric file that never grows beyond its allocated disk space.

    Without disk space, the numbers go to private memory. They are then missing from the sums over
    all workers; nothing else changes.
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
        """Add a number, after allocating space for it."""
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
        # Keep the file of a counter with its last values: without it, Prometheus would take the
        # lower sum for a restart and count everything again. Delete a gauge's, which would be
        # stale.
        name = Path(self._fname)
        if name.name.startswith("gauge"):
            name.unlink(missing_ok=True)
        message = "metrics of this worker are missing from the sums: %s: %s"
        arguments = (message, name.name, error)
        # In a thread: prometheus_client's lock is held here, and counting a dropped log line needs
        # it too.
        threading.Thread(target=logger.error, args=arguments, daemon=True).start()

    def close(self) -> None:
        """Close the file, if there is one, and the memory."""
        if self._f is not None:
            super().close()  # type: ignore[no-untyped-call]
        else:
            self._m.close()


def _allocate(filename: str) -> None:
    """Create the file with space for its first numbers.

    Raises:
        OSError: the disk is full or the folder is missing.
    """
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size == 0:
            os.posix_fallocate(descriptor, 0, INITIAL_BYTES)
    except OSError:
        os.unlink(filename)  # noqa: PTH108 — an empty file would be read as damaged
        raise
    finally:
        os.close(descriptor)


@cache
def prepare_metric_files() -> None:
    """Make ``prometheus_client`` use :class:`AllocatedDict`, and learn of forks from Python instead
    of asking the kernel for the process id at every increment. Call it before creating a metric."""
    values = prometheus_client.values
    if hasattr(os, "posix_fallocate"):
        setattr(values, "MmapedDict", AllocatedDict)  # noqa: B010 — not exported
    if not hasattr(os, "register_at_fork") or values.ValueClass is values.MutexValue:
        return
    process = [os.getpid()]

    def after_fork() -> None:
        process[0] = os.getpid()

    os.register_at_fork(after_in_child=after_fork)
    values.ValueClass = values.MultiProcessValue(lambda: process[0])  # type: ignore[no-untyped-call]
