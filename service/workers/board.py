"""The board: numbers that the worker processes share, such as how many connections each has.

Its memory is made by BentoML's process before any of them starts, and is inherited as a file
descriptor. So it outlives every worker and their supervisor, and a new supervisor finds the workers
that are still running. A number is eight aligned bytes, which no reader sees half-written, and has
one writer; only :meth:`Board.next_reload` has several, which take turns.
"""

import hashlib
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

BOARD_VARIABLE: Final = "_CIFAR10_BOARD_FD"
"""Environment variable that tells child processes the board's descriptor."""

SPARE: Final = 2
"""Rows for each worker: one that ends may still be serving when its successor starts."""

RATE_BUCKETS: Final = 1 << 15

RELOADS: Final = 8
"""How many of the newest reloads the board remembers."""

EVERY_MODEL: Final = 0
"""Key of a reload that is for each model that has changed."""

STALE_MS: Final = 5_000
"""A worker beats ten times a second; one that has not for this long is stuck. Its supervisor gives
it more time before it is killed."""


class Field(IntEnum):
    """Numbers in the row of one worker."""

    PROCESS = 0
    """Its process id; 0 in a free row."""
    READY = 1
    """1 once all its models are fit to answer."""
    CONNECTIONS = 2
    """Its open connections."""
    BEAT = 3
    """When its event loop last turned, in ms on the clock that processes share."""
    RELOADED = 4
    """Number of the last reload that it has dealt with."""


class _Head(IntEnum):
    WANTED = 0
    WAS_READY = 1
    RELOAD = 2


_ROWS_START: Final = len(_Head) + RELOADS
"""Head, then the model of each of the newest reloads, then the rows."""

_ROW_LENGTH: Final = len(Field) + RELOADS
"""Fields, then the outcome of each of the newest reloads: twice its number, plus 1 if it failed."""


class Board:
    """The rows of all workers.

    Args:
        workers: how many there should be.
        descriptor: file of the memory; None for private memory, of a worker that is alone.
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        self.size = workers * SPARE
        self._descriptor = descriptor
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, board_bytes(workers))
        view = memoryview(self._memory)
        end = 8 * (_ROWS_START + self.size * _ROW_LENGTH)
        self._numbers = view[:end].cast("q")
        self.buckets = view[end : end + 16 * RATE_BUCKETS].cast("d")
        """Two numbers for each bucket of :mod:`service.rate_limit`."""
        self._numbers[_Head.WANTED] = workers

    def get(self, row: int, field: int) -> int:
        """Return one number of one worker."""
        return self._numbers[_ROWS_START + row * _ROW_LENGTH + field]

    def put(self, row: int, field: int, value: int) -> None:
        """Set one number of one worker."""
        self._numbers[_ROWS_START + row * _ROW_LENGTH + field] = value

    @property
    def wanted(self) -> int:
        """Number of workers that should run."""
        return self._numbers[_Head.WANTED]

    @property
    def ready(self) -> int:
        """Number of workers that can answer now: ready, and with an event loop that has turned
        within :data:`STALE_MS`. One without a beat, as where there is no supervisor, counts."""
        stale = shared_clock_ms() - STALE_MS
        return sum(
            self.get(row, Field.READY)
            for row in range(self.size)
            if not 0 < self.get(row, Field.BEAT) < stale
        )

    @property
    def was_ready(self) -> bool:
        """Whether any worker has been ready since the program began."""
        return bool(self._numbers[_Head.WAS_READY])

    def next_reload(self, key: int) -> int:
        """Announce a reload to all workers and return its number.

        Args:
            key: of :func:`model_key`, or :data:`EVERY_MODEL`.
        """
        with self._turn():
            number = self.last_reload + 1
            self._numbers[len(_Head) + number % RELOADS] = key
            self._numbers[_Head.RELOAD] = number
        return number

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._descriptor is None:
            yield
            return
        import fcntl  # not everywhere

        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)  # a lock of the process, not of the file
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    @property
    def last_reload(self) -> int:
        """Number of the newest reload; 0 when there was none."""
        return self._numbers[_Head.RELOAD]

    def reload_key(self, number: int) -> int:
        """Return the key of one of the :data:`RELOADS` newest reloads."""
        return self._numbers[len(_Head) + number % RELOADS]

    def reload_outcome(self, row: int, number: int) -> bool | None:
        """Return whether a worker has carried out one of the newest reloads; None: not yet."""
        doubled, failed = divmod(self.get(row, len(Field) + number % RELOADS), 2)
        return None if doubled != number else not failed

    def take_row(self, process: int) -> int:
        """Reserve a free row for a new worker and return it. Called by the process that starts it.

        Raises:
            RuntimeError: more workers than rows, which is a defect of this program.
        """
        for row in range(self.size):
            if not self.get(row, Field.PROCESS):
                for field in range(_ROW_LENGTH):
                    self.put(row, field, 0)
                self.put(row, Field.RELOADED, self.last_reload)
                self.put(row, Field.PROCESS, process)
                return row
        message = f"all {self.size} rows of the board are taken"
        raise RuntimeError(message)

    def free_row(self, row: int) -> None:
        """Free the row of a worker that has ended."""
        for field in reversed(range(_ROW_LENGTH)):  # the process last: only then is it free
            self.put(row, field, 0)

    def rows(self) -> Iterator[int]:
        """Yield the rows of the workers that run."""
        return (row for row in range(self.size) if self.get(row, Field.PROCESS))


class Place:
    """One worker's view of the board: its own row, and questions about the others."""

    def __init__(self, board: Board, row: int) -> None:
        self.board = board
        self.row = row

    @classmethod
    def alone(cls) -> "Place":
        """Return the place of a worker without our supervisor: BentoML's own, or a test's."""
        board = Board(1)
        return cls(board, board.take_row(os.getpid()))

    def put(self, field: int, value: int) -> None:
        """Set one number of this worker."""
        self.board.put(self.row, field, value)

    def set_ready(self, ready: bool) -> None:
        """Record whether this worker can answer."""
        self.put(Field.READY, ready)
        if ready:
            self.board._numbers[_Head.WAS_READY] = 1

    @property
    def missed_reload(self) -> bool:
        """Whether a reload was announced that this worker has not dealt with."""
        return self.board.get(self.row, Field.RELOADED) < self.board.last_reload

    def report_reload(self, number: int, done: bool) -> None:
        """Record that this worker has dealt with a reload, and whether it serves what it should."""
        self.put(len(Field) + number % RELOADS, 2 * number + (not done))
        self.put(Field.RELOADED, number)

    def beat(self) -> None:
        """Record that this worker's event loop turns."""
        self.put(Field.BEAT, shared_clock_ms())

    def fewest_connections_of_others(self) -> int | None:
        """Return the fewest connections of any other ready worker; None without another."""
        return min(
            (
                self.board.get(row, Field.CONNECTIONS)
                for row in range(self.board.size)
                if row != self.row and self.board.get(row, Field.READY)
            ),
            default=None,
        )

    def others(self) -> list[tuple[int, int]]:
        """Return the row and process of every other worker."""
        return [
            (row, self.board.get(row, Field.PROCESS))
            for row in self.board.rows()
            if row != self.row
        ]


def board_bytes(workers: int) -> int:
    """Return the size of a board's memory."""
    return 8 * (_ROWS_START + workers * SPARE * _ROW_LENGTH) + 16 * RATE_BUCKETS


def model_key(name: str) -> int:
    """Return a number that stands for a model's name, the same in all processes; never
    :data:`EVERY_MODEL`."""
    return 1 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def shared_clock_ms() -> int:
    """Return the monotonic clock, which all processes of a machine share, in ms."""
    return time.monotonic_ns() // 1_000_000


def leave_board(workers: int) -> None:
    """Make a board that every process started from this one inherits. Linux only; a second call
    has no effect."""
    if sys.platform != "linux" or BOARD_VARIABLE in os.environ:
        return
    descriptor = os.memfd_create("cifar10-board", 0)
    os.ftruncate(descriptor, board_bytes(workers))
    os.set_inheritable(descriptor, True)
    os.environ[BOARD_VARIABLE] = str(descriptor)


def inherited_board(workers: int) -> Board:
    """Return the board that :func:`leave_board` made, or a new one where there is none."""
    text = os.environ.get(BOARD_VARIABLE, "")
    if text.isdigit():
        try:
            size = board_bytes(workers)
            if os.fstat(int(text)).st_size == size:
                return Board(workers, int(text))
        except OSError:  # not inherited: the variable is from an earlier program
            pass
    return Board(workers)
