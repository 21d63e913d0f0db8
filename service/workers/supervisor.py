"""Keeps the workers alive: one process that forks them, waits, and forks a new one for each that
ends.

BentoML's own supervisor looks for dead workers every ten seconds and starts a new interpreter for
each. This one is what BentoML starts instead of a worker, has everything imported already, and is
told by the kernel: a new worker answers well within a second. Linux only; elsewhere BentoML's
workers are used as they are.

When this process itself is killed, its workers stay and answer on; BentoML starts another one,
which lets them go when its own are ready. When BentoML's supervisor is gone, all end.
"""

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from service.telemetry.metrics import forget_dead_workers
from service.workers.board import Board, Field, Place, shared_clock_ms

logger = logging.getLogger(__name__)

CAN_FORK: Final = sys.platform == "linux"

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between two starts of a worker that does not become ready: doubled each time up to this."""

STEADY_SECONDS: Final = 10.0
"""A worker that was ready and lived for this long is replaced at once; one that was ready and died
sooner, after :data:`FIRST_PAUSE_SECONDS`, so that what kills them all does not take a core too."""

STUCK_SECONDS: Final = 30.0
"""A worker whose event loop has not turned for this long is killed and replaced."""

_LOOK_SECONDS: Final = 0.5
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

RunWorker = Callable[[Place, int], None]
"""Serves until told to end: its place on the board, and a descriptor whose end of file says that
this process is gone."""


@dataclass
class _Seat:
    """One of the workers that there should be."""

    process: int = 0
    row: int = 0
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0


class Supervisor:
    """Args:
    board: shared with the workers.
    run_worker: what a worker does, in its own process.
    drain_seconds: the time that a worker has to finish what it has accepted.
    """

    def __init__(self, board: Board, run_worker: RunWorker, drain_seconds: float) -> None:
        self._board = board
        self._run_worker = run_worker
        self._drain_seconds = drain_seconds
        self._seats = [_Seat() for _ in range(board.wanted)]
        self._parent = os.getppid()
        self._lifeline = os.pipe()
        self._inherited: list[tuple[int, int]] = []
        """(row, process) of workers whose own supervisor was killed."""
        self._noted: set[int] = set()
        """Signals that another thread of this process took."""

    def run(self) -> NoReturn:
        """Start the workers and keep them; end with the process."""
        # Blocked here, a signal goes to whichever thread has not blocked it, such as those that
        # NumPy's BLAS keeps: without a handler it would end the process, workers and all.
        for number in _SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._adopt()
        gc.collect()
        gc.freeze()  # so that a worker's collector does not copy what all of them share
        while True:
            self._start_missing()
            arrived = self._wait()
            if arrived - {signal.SIGHUP, signal.SIGCHLD}:
                self._end()
            if signal.SIGHUP in arrived:
                self._signal_all(signal.SIGHUP)
            if os.getppid() != self._parent:
                logger.error("the process that started this one is gone; ending")
                self._end()
            self._bury()
            self._kill_stuck()
            self._dismiss_inherited()

    def _wait(self) -> set[int]:
        """The signals that have arrived, once there is one or something may be due."""
        arrived = signal.sigtimedwait(_SIGNALS, self._patience())
        noted, self._noted = self._noted, set()
        return noted if arrived is None else noted | {arrived.si_signo}

    def _note(self, number: int, _: object) -> None:
        self._noted.add(number)

    def _patience(self) -> float:
        now = time.monotonic()
        starts = [seat.start_at - now for seat in self._seats if not seat.process]
        return max(0.0, min(_LOOK_SECONDS, *starts)) if starts else _LOOK_SECONDS

    def _adopt(self) -> None:
        for row in self._board.rows():
            process = self._board.get(row, Field.PROCESS)
            if _alive(process):
                self._inherited.append((row, process))
            else:
                self._board.free_row(row)
        if self._inherited:
            logger.warning("%d workers of a killed supervisor are at work", len(self._inherited))

    def _dismiss_inherited(self) -> None:
        """Let them go once they are not needed, and clear up after them."""
        own = sum(self._board.get(seat.row, Field.READY) for seat in self._seats if seat.process)
        for row, process in list(self._inherited):
            if not _alive(process):
                self._board.free_row(row)
                self._inherited.remove((row, process))
            elif own == len(self._seats):
                os.kill(process, signal.SIGTERM)

    def _start_missing(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if not seat.process and seat.start_at <= now:
                self._start(seat)

    def _start(self, seat: _Seat) -> None:
        row = self._board.take_row(os.getpid())  # until the worker's own id is known
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            self._be_worker(row)
        self._board.put(row, Field.PROCESS, process)
        self._board.put(row, Field.BEAT, shared_clock_ms())
        seat.process, seat.row, seat.started = process, row, time.monotonic()

    def _be_worker(self, row: int) -> NoReturn:
        code = 1
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # An exception, so that what the worker has begun is ended in order.
            signal.signal(signal.SIGTERM, _leave)
            signal.signal(signal.SIGINT, _leave)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._lifeline[1])
            self._board.put(row, Field.PROCESS, os.getpid())
            self._run_worker(Place(self._board, row), self._lifeline[0])
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            logger.exception("a worker failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not the interpreter's end: that is the supervisor's, with all that it registered.
            os._exit(code)

    def _bury(self) -> None:
        """Take note of the workers that have ended."""
        for seat in self._seats:
            if not seat.process:
                continue
            ended, status = os.waitpid(seat.process, os.WNOHANG)
            if not ended:
                continue
            was_ready = bool(self._board.get(seat.row, Field.READY))
            self._board.free_row(seat.row)
            forget_dead_workers()
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
                logger.error("worker %d is stuck; killing it", seat.process)
                os.kill(seat.process, signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in [seat.process for seat in self._seats if seat.process]:
            os.kill(process, number)

    def _end(self) -> NoReturn:
        """Let the workers finish what they have accepted, within a bound."""
        self._signal_all(signal.SIGTERM)
        for _, process in self._inherited:
            if _alive(process):
                os.kill(process, signal.SIGTERM)
        # A little more than a worker takes for itself, which also logs what it gives up.
        until = time.monotonic() + self._drain_seconds + 2.0
        left = [seat for seat in self._seats if seat.process]
        while left:
            left = [seat for seat in left if not os.waitpid(seat.process, os.WNOHANG)[0]]
            if left and time.monotonic() > until:
                logger.error("%d workers did not end in time; killing them", len(left))
                for seat in left:
                    os.kill(seat.process, signal.SIGKILL)
                until += 3600
            if left:
                signal.sigtimedwait((signal.SIGCHLD,), 0.1)
        sys.exit(0)


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(0)


def _alive(process: int) -> bool:
    """Whether it runs: one that has ended and that nobody has asked after does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return False
    return not state.startswith(("Z", "X"))


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
