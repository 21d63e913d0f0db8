"""The supervisor: a process that forks the workers and replaces each worker that ends.

BentoML's own supervisor looks for dead workers every ten seconds and starts a new interpreter for
each. BentoML starts this process in place of a worker. It has already imported everything, and the
kernel notifies it when a worker dies, so a new worker serves well within a second. Linux only; on
other systems BentoML's workers serve requests themselves.

If this process is killed, its workers keep serving. BentoML starts another supervisor, which ends
them once its own workers are ready. If BentoML's process is gone, all processes end.

Nothing here waits for the log, which may be blocked, closed or full
(:mod:`service.telemetry.logs`).
"""

import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from service.telemetry.logs import flush_log, rest_log
from service.telemetry.metrics import forget_dead_workers
from service.workers.board import EVERY_MODEL, Board, Field, Place, shared_clock_ms

logger = logging.getLogger(__name__)

CAN_FORK: Final = sys.platform == "linux"

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Longest pause between two starts of a worker that does not become ready. The pause doubles with
each start."""

STEADY_SECONDS: Final = 10.0
"""Lifetime after which a worker that was ready is replaced at once when it dies. One that dies
sooner is replaced after :data:`FIRST_PAUSE_SECONDS`, so that a fault that kills every worker does
not also use up a core."""

STUCK_SECONDS: Final = 30.0
"""Time without a heartbeat after which a worker is killed and replaced."""

_LOOK_SECONDS: Final = 0.5
_END_LOOK_SECONDS: Final = 0.1
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

PARENT_VARIABLE: Final = "_CIFAR10_BENTOML_PROCESS"
"""Environment variable that passes the id of BentoML's process to the supervisor."""

RunWorker = Callable[[Place, int], None]
"""Function that serves until the worker is stopped. Arguments: the worker's place on the board, and
a descriptor that reads end of file when the supervisor is gone."""


@dataclass
class _Seat:
    """State of one of the workers that should run."""

    process: int = 0
    row: int = 0
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0


class Supervisor:
    """Starts, monitors, replaces and ends the workers.

    Args:
        board: the board shared with the workers.
        run_worker: function that serves, called in the worker's process.
        drain_seconds: time limit for a worker to finish its accepted requests.
    """

    def __init__(self, board: Board, run_worker: RunWorker, drain_seconds: float) -> None:
        self._board = board
        self._run_worker = run_worker
        self._drain_seconds = drain_seconds
        self._seats = [_Seat() for _ in range(board.wanted)]
        self._parent = int(os.environ.get(PARENT_VARIABLE) or os.getppid())
        self._lifeline = os.pipe()
        self._wakeup = os.pipe()
        """Readable as soon as a signal has arrived."""
        self._inherited: list[tuple[int, int]] = []
        """(row, process) of workers whose own supervisor was killed."""
        self._arrived: set[int] = set()
        """Signals that have arrived, recorded by their handler."""
        self._has_metrics_of_dead = True
        """Whether there may be metric files of ended workers, including a predecessor's."""

    def run(self) -> NoReturn:
        """Start the workers and keep them running until this process ends."""
        # Act only on signals that a handler has recorded. sigtimedwait() cannot be trusted: when it
        # is interrupted, as by SIGSTOP and SIGCONT, it may return a signal that was never sent.
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._adopt()
        gc.collect()
        gc.freeze()  # so that a worker's garbage collector does not copy shared pages
        while True:
            if os.getppid() != self._parent:
                self._end("the parent process is gone; ending")
            self._start_missing()
            arrived = self._wait(self._patience())
            if arrived - {signal.SIGHUP, signal.SIGCHLD}:
                self._end()
            if signal.SIGHUP in arrived:
                self._board.next_reload(EVERY_MODEL)
                self._signal_all(signal.SIGHUP)
            self._reap()
            self._kill_stuck()
            self._dismiss_inherited()
            if self._has_metrics_of_dead:
                self._has_metrics_of_dead = not forget_dead_workers()

    def _wait(self, seconds: float) -> set[int]:
        """Wait for a signal, for at most ``seconds``. Return the signals that have arrived."""
        select.select([self._wakeup[0]], [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self._wakeup[0], 4096):
                pass
        # Remove each signal before acting on it, because a handler may run between any two steps.
        return {number for number in _SIGNALS if self._take(number)}

    def _take(self, number: int) -> bool:
        there = number in self._arrived
        self._arrived.discard(number)
        return there

    def _note(self, number: int, _: object) -> None:
        self._arrived.add(number)

    def _patience(self) -> float:
        """Return the seconds until the next action may be due."""
        now = time.monotonic()
        starts = [seat.start_at - now for seat in self._seats if not seat.process]
        return max(0.0, min(_LOOK_SECONDS, *starts)) if starts else _LOOK_SECONDS

    def _adopt(self) -> None:
        """Find the running workers of a killed supervisor."""
        for row in self._board.rows():
            process = self._board.get(row, Field.PROCESS)
            if _alive(process):
                self._inherited.append((row, process))
            else:
                self._board.free_row(row)
        if self._inherited:
            logger.warning("%d workers of a killed supervisor are running", len(self._inherited))

    def _dismiss_inherited(self) -> None:
        """End the inherited workers once this supervisor's own are ready, and free their rows."""
        own = sum(self._board.get(seat.row, Field.READY) for seat in self._seats if seat.process)
        for row, process in list(self._inherited):
            if not _alive(process):
                self._board.free_row(row)
                self._inherited.remove((row, process))
                self._has_metrics_of_dead = True
            elif own == len(self._seats):
                os.kill(process, signal.SIGTERM)

    def _start_missing(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if not seat.process and seat.start_at <= now:
                self._start(seat)

    def _start(self, seat: _Seat) -> None:
        row = self._board.take_row(os.getpid())  # until the worker's own id is known
        rest_log()  # to fork with other threads is unsafe in general; Python 3.12 warns of it
        # Blocked until the worker has its own handlers: a signal is then delayed, not lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process = os.fork()
        if not process:
            self._be_worker(row)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._board.put(row, Field.PROCESS, process)
        self._board.put(row, Field.BEAT, shared_clock_ms())
        seat.process, seat.row, seat.started = process, row, time.monotonic()

    def _be_worker(self, row: int) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # Raise an exception, so that the worker shuts down in order.
            signal.signal(signal.SIGTERM, _leave)
            signal.signal(signal.SIGINT, _leave)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for descriptor in (self._lifeline[1], *self._wakeup):
                os.close(descriptor)
            self._board.put(row, Field.PROCESS, os.getpid())
            self._run_worker(Place(self._board, row), self._lifeline[0])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            logger.exception("a worker failed")
        finally:
            flush_log()
            # Not the interpreter's exit: the exit handlers registered here are the supervisor's.
            os._exit(code)

    def _reap(self) -> None:
        """Release the resources of ended workers and schedule their replacement."""
        for seat in self._seats:
            if not seat.process:
                continue
            ended, status = os.waitpid(seat.process, os.WNOHANG)
            if not ended:
                continue
            was_ready = bool(self._board.get(seat.row, Field.READY))
            self._board.free_row(seat.row)
            self._has_metrics_of_dead = True
            now = time.monotonic()
            if was_ready:
                steady = now - seat.started > STEADY_SECONDS
                seat.pause = 0.0 if steady else FIRST_PAUSE_SECONDS
            else:
                doubled = max(FIRST_PAUSE_SECONDS, 2 * seat.pause)
                seat.pause = min(LONGEST_PAUSE_SECONDS, doubled)
            seat.start_at = now + seat.pause
            logger.error(
                "worker %d ended: %s; a new one starts in %.1f s",
                seat.process,
                _reason(status),
                seat.pause,
            )
            seat.process = 0

    def _kill_stuck(self) -> None:
        limit = shared_clock_ms() - STUCK_SECONDS * 1e3
        for seat in self._seats:
            if not seat.process or not self._board.get(seat.row, Field.READY):
                continue
            if self._board.get(seat.row, Field.BEAT) < limit:
                os.kill(seat.process, signal.SIGKILL)
                logger.error("worker %d was stuck and has been killed", seat.process)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in [seat.process for seat in self._seats if seat.process]:
            os.kill(process, number)

    def _end(self, reason: str = "") -> NoReturn:
        """Let the workers finish their accepted requests, within a time limit; then exit."""
        self._signal_all(signal.SIGTERM)
        for _, process in self._inherited:
            if _alive(process):
                os.kill(process, signal.SIGTERM)
        if reason:
            logger.error("%s", reason)
        # A little longer than a worker's own limit, so that it can log the requests it abandons.
        until = time.monotonic() + self._drain_seconds + 2.0
        left = [seat for seat in self._seats if seat.process]
        while left:
            left = [seat for seat in left if not os.waitpid(seat.process, os.WNOHANG)[0]]
            if left and time.monotonic() > until:
                for seat in left:
                    os.kill(seat.process, signal.SIGKILL)
                logger.error("%d workers did not end in time and have been killed", len(left))
                until += 3600
            if left:
                self._wait(_END_LOOK_SECONDS)
        sys.exit(0)


def leave_parent() -> None:
    """Tell the supervisor that this process will start whose end to watch for: it may find another
    parent already, if this process is killed while that one imports."""
    os.environ[PARENT_VARIABLE] = str(os.getpid())


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(0)


def _alive(process: int) -> bool:
    """Return whether the process is running; a zombie is not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return False
    return not state.startswith(("Z", "X"))


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
