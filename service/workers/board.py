"""The board: shared memory with the state of all worker processes, such as their connections.

BentoML's process creates the memory before any worker starts, and the workers inherit it as a file
descriptor. So it outlives every worker and their supervisor, and a new supervisor finds the workers
that are still running. A number has eight aligned bytes, so no reader sees it half-written, and one
writer. Only :meth:`Board.next_reload` has several writers, which use a lock.
"""

import hashlib
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

BOARD_VARIABLE: Final = "_CIFAR10_BOARD_FD"
"""Environment variable that passes the board's descriptor to child processes."""

SPARE: Final = 2
"""Number of rows per worker: a worker that is ending may still serve when its successor starts."""

RATE_BUCKETS: Final = 1 << 15

RELOADS: Final = 8
"""Number of recent reloads that the board stores."""

MAX_UNLOADED: Final = 64
"""Maximum number of models that are out of service because they were unloaded."""

EVERY_MODEL: Final = 0
"""Key of a reload of every model that has changed."""

STALE_MS: Final = 5_000
"""Age of the last heartbeat above which a worker counts as stuck; heartbeats come ten times a
second. The supervisor waits longer before it kills the worker."""


class Field(IntEnum):
    """Numbers in the row of one worker."""

    PROCESS = 0
    """Process id; 0 in a free row."""
    READY = 1
    """1 once all models of the worker are ready."""
    CONNECTIONS = 2
    """Number of open connections."""
    BEAT = 3
    """Time of the event loop's last heartbeat, in ms on the clock that processes share."""
    RELOADED = 4
    """Number of the last reload that the worker has handled."""


class _Head(IntEnum):
    WANTED = 0
    WAS_READY = 1
    RELOAD = 2
    STARTED = 3
    LISTENS_FOR_RPC = 4


_UNLOADED_START: Final = len(_Head) + RELOADS
"""Offset of the keys of the unloaded models: they follow the head and the keys of the recent
reloads."""
_ROWS_START: Final = _UNLOADED_START + MAX_UNLOADED
"""Offset of the rows."""

_ROW_LENGTH: Final = len(Field) + RELOADS
"""Length of a row: the fields, then the outcome of each recent reload (twice its number, plus 1 if
it failed)."""


class Board:
    """Shared memory with a row for each worker.

    Args:
        workers: number of workers that should run.
        descriptor: file descriptor of the memory; None: private memory, for a single worker.
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        self.size = workers * SPARE
        self._descriptor = descriptor
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, board_bytes(workers))
        view = memoryview(self._memory)
        end = 8 * (_ROWS_START + self.size * _ROW_LENGTH)
        self._numbers = view[:end].cast("q")
        self.buckets = view[end : end + 16 * RATE_BUCKETS].cast("d")
        """Buckets of :mod:`service.rate_limit`, two numbers each."""
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
        """Number of workers that can answer now: ready, and with a heartbeat within
        :data:`STALE_MS`. Workers without heartbeats, which have no supervisor, are counted too."""
        stale = shared_clock_ms() - STALE_MS
        return sum(
            self.get(row, Field.READY)
            for row in range(self.size)
            if not 0 < self.get(row, Field.BEAT) < stale
        )

    @property
    def was_ready(self) -> bool:
        """Whether any worker has been ready since the server started."""
        return bool(self._numbers[_Head.WAS_READY])

    def claim_start(self) -> bool:
        """Return True once for each server: to the first caller after all workers became ready."""
        if self._numbers[_Head.STARTED] or self.ready < self.wanted:
            return False
        with self._turn():
            is_first = not self._numbers[_Head.STARTED]
            self._numbers[_Head.STARTED] = 1
        return is_first

    @property
    def listens_for_rpc(self) -> bool | None:
        """Whether workers listen on the port of gRPC; None until the first supervisor decides."""
        state = self._numbers[_Head.LISTENS_FOR_RPC]
        return None if not state else state == 1

    @listens_for_rpc.setter
    def listens_for_rpc(self, listens: bool) -> None:
        self._numbers[_Head.LISTENS_FOR_RPC] = 1 if listens else 2

    def next_reload(self, key: int) -> int:
        """Announce a reload to all workers and return its number.

        Args:
            key: a result of :func:`model_key`, or :data:`EVERY_MODEL`.
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
        import fcntl  # not on Windows

        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)  # a lock of the process, not of the file
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    @property
    def last_reload(self) -> int:
        """Number of the newest reload; 0 if there was none."""
        return self._numbers[_Head.RELOAD]

    def reload_key(self, number: int) -> int:
        """Return the key of one of the :data:`RELOADS` most recent reloads."""
        return self._numbers[len(_Head) + number % RELOADS]

    def reload_outcome(self, row: int, number: int) -> bool | None:
        """Return whether a recent reload succeeded in a worker; None if it is not finished."""
        doubled, failed = divmod(self.get(row, len(Field) + number % RELOADS), 2)
        return None if doubled != number else not failed

    def is_unloaded(self, key: int) -> bool:
        """Return whether a model is to be out of service in every worker."""
        return key in self._numbers[_UNLOADED_START:_ROWS_START].tolist()

    def set_unloaded(self, key: int, unloaded: bool) -> None:
        """Record whether a model is to be out of service in every worker.

        Raises:
            RuntimeError: :data:`MAX_UNLOADED` models are out of service already.
        """
        with self._turn():
            keys = self._numbers[_UNLOADED_START:_ROWS_START].tolist()
            if (key in keys) == unloaded:
                return
            before, after = (0, key) if unloaded else (key, 0)
            if before not in keys:
                message = f"{MAX_UNLOADED} models are unloaded already; load one of them first"
                raise RuntimeError(message)
            self._numbers[_UNLOADED_START + keys.index(before)] = after

    def take_row(self, process: int) -> int:
        """Reserve a free row for a new worker and return it. Called by the process that starts the
        worker.

        Raises:
            RuntimeError: there are more workers than rows, which is a bug in this program.
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
        for field in reversed(range(_ROW_LENGTH)):  # the process id last: it marks a free row
            self.put(row, field, 0)

    def rows(self) -> Iterator[int]:
        """Return the rows of the running workers."""
        return (row for row in range(self.size) if self.get(row, Field.PROCESS))


class Place:
    """One worker's view of the board: its own row, and queries about the other workers."""

    def __init__(self, board: Board, row: int) -> None:
        self.board = board
        self.row = row
        self.on_start: Callable[[], None] = lambda: None
        """Called in one worker of the server, once, when all workers are ready."""

    @classmethod
    def alone(cls) -> "Place":
        """Return the place of a worker without our supervisor, such as BentoML's own or a
        test's."""
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
            if self.board.claim_start():
                self.on_start()

    @property
    def missed_reload(self) -> bool:
        """Whether a reload was announced that this worker has not handled."""
        return self.board.get(self.row, Field.RELOADED) < self.board.last_reload

    def report_reload(self, number: int, done: bool) -> None:
        """Record that this worker has handled a reload, and whether it succeeded."""
        self.put(len(Field) + number % RELOADS, 2 * number + (not done))
        self.put(Field.RELOADED, number)

    def beat(self) -> None:
        """Record a heartbeat of this worker's event loop."""
        self.put(Field.BEAT, shared_clock_ms())

    def fewest_connections_of_others(self) -> int | None:
        """Return the smallest number of connections of any other ready worker; None without one."""
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
    """Return the number that identifies a model's name in all processes; never
    :data:`EVERY_MODEL`."""
    return 1 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def shared_clock_ms() -> int:
    """Return the monotonic clock, which all processes of a machine share, in ms."""
    return time.monotonic_ns() // 1_000_000


def leave_board(workers: int) -> None:
    """Create a board that all child processes inherit. Linux only; a second call has no effect."""
    if sys.platform != "linux" or BOARD_VARIABLE in os.environ:
        return
    descriptor = os.memfd_create("cifar10-board", 0)
    os.ftruncate(descriptor, board_bytes(workers))
    os.set_inheritable(descriptor, True)
    os.environ[BOARD_VARIABLE] = str(descriptor)


def inherited_board(workers: int) -> Board:
    """Return the board that :func:`leave_board` created, or a new one if there is none."""
    text = os.environ.get(BOARD_VARIABLE, "")
    if text.isdigit():
        try:
            size = board_bytes(workers)
            if os.fstat(int(text)).st_size == size:
                return Board(workers, int(text))
        except OSError:  # not inherited; the variable is left from another program
            pass
    return Board(workers)
