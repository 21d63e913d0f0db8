"""The supervisor: one process that forks the workers and replaces each worker that ends.

BentoML's own supervisor looks for dead workers every ten seconds and starts a new interpreter for
each. BentoML starts this one in the place of a worker. It has everything imported already and
hears of a death from the kernel, so a new worker answers well within a second. Linux only;
elsewhere BentoML's workers serve by themselves.

When this process is killed, its workers keep serving; BentoML starts another supervisor, which
ends them once its own workers are ready. When BentoML's process is gone, all end.

Nothing here waits for the log: it may be blocked, dead or full (:mod:`service.telemetry.logs`).
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
"""Longest pause between two starts of a worker that does not become ready; it doubles each time."""

STEADY_SECONDS: Final = 10.0
"""A worker that was ready and lived for this long is replaced at once. One that died sooner is
replaced after :data:`FIRST_PAUSE_SECONDS`, so that a fault that kills each of them does not also
take a core."""

STUCK_SECONDS: Final = 30.0
"""A worker whose event loop has not turned for this long is killed and replaced."""

_LOOK_SECONDS: Final = 0.5
_END_LOOK_SECONDS: Final = 0.1
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

PARENT_VARIABLE: Final = "_CIFAR10_BENTOML_PROCESS"
"""Environment variable that tells the supervisor the id of BentoML's process."""

RunWorker = Callable[[Place, int], None]
"""Serves until told to end. Arguments: the worker's place on the board, and a descriptor that reads
end of file when the supervisor is gone."""


@dataclass
class _Seat:
    """One of the workers that should run."""

    process: int = 0
    row: int = 0
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0


class Supervisor:
    """Starts, watches, replaces and ends the workers.

    Args:
        board: shared with the workers.
        run_worker: serves, in the worker's own process.
        drain_seconds: time that a worker has to finish the requests it has accepted.
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
        """Signals that have arrived, noted by their handler."""
        self._has_metrics_of_dead = True
        """Whether there may be metrics of workers that have ended, here or under a predecessor."""

    def run(self) -> NoReturn:
        """Start the workers and keep them running; end with the process."""
        # Only a signal that a handler has noted is acted on. What sigtimedwait() returns cannot be
        # trusted: interrupted, as by SIGSTOP and SIGCONT, it may return a signal that never came.
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._adopt()
        gc.collect()
        gc.freeze()  # so that a worker's collector does not copy what all of them share
        while True:
            if os.getppid() != self._parent:
                self._end("the process that started this one is gone; ending")
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
        """Return the signals that have arrived, once there is one or ``seconds`` have passed."""
        select.select([self._wakeup[0]], [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self._wakeup[0], 4096):
                pass
        # A handler may run between any two steps: each signal is taken out before it is acted on.
        return {number for number in _SIGNALS if self._take(number)}

    def _take(self, number: int) -> bool:
        there = number in self._arrived
        self._arrived.discard(number)
        return there

    def _note(self, number: int, _: object) -> None:
        self._arrived.add(number)

    def _patience(self) -> float:
        """Return the seconds until something may be due."""
        now = time.monotonic()
        starts = [seat.start_at - now for seat in self._seats if not seat.process]
        return max(0.0, min(_LOOK_SECONDS, *starts)) if starts else _LOOK_SECONDS

    def _adopt(self) -> None:
        """Find the workers that a killed supervisor has left."""
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
            # An exception, so that what the worker has begun is ended in order.
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
        """Free what workers that have ended held, and schedule their replacement."""
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
        """Let the workers finish the requests they have accepted, within a bound."""
        self._signal_all(signal.SIGTERM)
        for _, process in self._inherited:
            if _alive(process):
                os.kill(process, signal.SIGTERM)
        if reason:
            logger.error("%s", reason)
        # A little more than a worker takes, which also logs the requests it gives up.
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
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return False
    return not state.startswith(("Z", "X"))


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
