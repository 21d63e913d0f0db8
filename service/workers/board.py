"""What the worker processes tell each other: a few numbers each, in memory that they share.

The memory is made before any of them, by the process that BentoML's supervisor is, and is inherited
as a file descriptor. So it outlives every worker and the process that starts them, and whoever
comes later finds those who are still at work. Every number is written by one process and is eight
aligned bytes, which no reader ever sees half-written.
"""

import mmap
import os
import sys
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

BOARD_VARIABLE: Final = "_CIFAR10_BOARD_FD"
"""In the environment of what inherits the board."""

SPARE: Final = 2
"""Rows for each worker: one that ends may still be at work when its successor begins."""

RATE_BUCKETS: Final = 1 << 15

STALE_MS: Final = 5_000
"""A worker beats ten times a second; one that has not for this long is stuck. Its supervisor gives
it more time before it is killed."""


class Field(IntEnum):
    """The numbers of one worker."""

    PROCESS = 0
    """Its process id; 0 in a row that is free."""
    READY = 1
    """1 once all its models are fit to answer."""
    CONNECTIONS = 2
    BEAT = 3
    """When its event loop last turned, in ms on the clock that processes share."""
    RELOADED = 4
    """The last reload that it has carried out."""
    RELOAD_FAILED = 5
    """The last reload that it could not carry out."""


class _Head(IntEnum):
    WANTED = 0
    WAS_READY = 1
    RELOAD = 2


class Board:
    """The rows of all workers.

    Args:
        workers: how many there should be.
        memory: where it is; made anew when None, for a worker that is alone.
    """

    def __init__(self, workers: int, memory: mmap.mmap | None = None) -> None:
        self.size = workers * SPARE
        self._memory = memory or mmap.mmap(-1, board_bytes(workers))
        view = memoryview(self._memory)
        end = 8 * (len(_Head) + self.size * len(Field))
        self._numbers = view[:end].cast("q")
        self.buckets = view[end : end + 16 * RATE_BUCKETS].cast("d")
        """Two for each bucket of :mod:`service.rate_limit`."""
        self._numbers[_Head.WANTED] = workers

    def get(self, row: int, field: Field) -> int:
        """One number of one worker."""
        return self._numbers[len(_Head) + row * len(Field) + field]

    def put(self, row: int, field: Field, value: int) -> None:
        """Set one number of one worker."""
        self._numbers[len(_Head) + row * len(Field) + field] = value

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._numbers[_Head.WANTED]

    @property
    def ready(self) -> int:
        """How many workers can answer now: of those that are ready, the ones whose event loop has
        turned lately. One that keeps no beat, as where there is no supervisor, is believed."""
        stale = shared_clock_ms() - STALE_MS
        return sum(
            self.get(row, Field.READY)
            for row in range(self.size)
            if not 0 < self.get(row, Field.BEAT) < stale
        )

    @property
    def was_ready(self) -> bool:
        """Whether a worker has been ready since the program began."""
        return bool(self._numbers[_Head.WAS_READY])

    def next_reload(self) -> int:
        """Count one more reload; its number."""
        self._numbers[_Head.RELOAD] += 1
        return self._numbers[_Head.RELOAD]

    @property
    def last_reload(self) -> int:
        """The number of the newest reload; 0 when there was none."""
        return self._numbers[_Head.RELOAD]

    def take_row(self, process: int) -> int:
        """A free row for a new worker, which the starting process clears and fills.

        Raises:
            RuntimeError: more workers than rows; a defect of ours.
        """
        for row in range(self.size):
            if not self.get(row, Field.PROCESS):
                for field in Field:
                    self.put(row, field, 0)
                self.put(row, Field.RELOADED, self.last_reload)
                self.put(row, Field.PROCESS, process)
                return row
        message = f"all {self.size} rows of the board are taken"
        raise RuntimeError(message)

    def free_row(self, row: int) -> None:
        """Give back the row of a worker that has ended."""
        for field in reversed(Field):  # ready and connections first, so that nobody counts on it
            self.put(row, field, 0)

    def rows(self) -> Iterator[int]:
        """The rows of the workers that there are."""
        return (row for row in range(self.size) if self.get(row, Field.PROCESS))


class Place:
    """One worker's own row, and what it asks of the others."""

    def __init__(self, board: Board, row: int) -> None:
        self.board = board
        self.row = row

    @classmethod
    def alone(cls) -> "Place":
        """Of a worker that our supervisor did not start: BentoML's own, or a test's."""
        board = Board(1)
        return cls(board, board.take_row(os.getpid()))

    def put(self, field: Field, value: int) -> None:
        """Tell one number."""
        self.board.put(self.row, field, value)

    def set_ready(self, ready: bool) -> None:
        """Tell whether this worker can answer."""
        self.put(Field.READY, ready)
        if ready:
            self.board._numbers[_Head.WAS_READY] = 1

    @property
    def missed_reload(self) -> bool:
        """Whether there has been a reload since this worker began, and it has not seen it."""
        return self.board.get(self.row, Field.RELOADED) < self.board.last_reload

    def beat(self) -> None:
        """Tell that this worker's event loop turns."""
        self.put(Field.BEAT, shared_clock_ms())

    def fewest_connections_of_others(self) -> int | None:
        """Of those that are ready; None where there is no other."""
        return min(
            (
                self.board.get(row, Field.CONNECTIONS)
                for row in range(self.board.size)
                if row != self.row and self.board.get(row, Field.READY)
            ),
            default=None,
        )

    def others(self) -> list[tuple[int, int]]:
        """(row, process) of every other worker."""
        return [
            (row, self.board.get(row, Field.PROCESS))
            for row in self.board.rows()
            if row != self.row
        ]


def board_bytes(workers: int) -> int:
    """The memory that a board takes."""
    return 8 * (len(_Head) + workers * SPARE * len(Field)) + 16 * RATE_BUCKETS


def shared_clock_ms() -> int:
    """The monotonic clock, which all processes of a machine share."""
    return time.monotonic_ns() // 1_000_000


def leave_board(workers: int) -> None:
    """Make a board that every process started from this one inherits. Linux only; once."""
    if sys.platform != "linux" or BOARD_VARIABLE in os.environ:
        return
    descriptor = os.memfd_create("cifar10-board", 0)
    os.ftruncate(descriptor, board_bytes(workers))
    os.set_inheritable(descriptor, True)
    os.environ[BOARD_VARIABLE] = str(descriptor)


def inherited_board(workers: int) -> Board:
    """The board that :func:`leave_board` left, or a new one where there is none."""
    text = os.environ.get(BOARD_VARIABLE, "")
    if text.isdigit():
        try:
            size = board_bytes(workers)
            if os.fstat(int(text)).st_size == size:
                return Board(workers, mmap.mmap(int(text), size))
        except OSError:  # not inherited after all: the variable is older than this program
            pass
    return Board(workers)
