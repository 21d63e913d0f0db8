"""Tests of the supervisor in its own process: restarts, signals, forks, reloads."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvicorn

from cifar10.environment import PROJECT_ROOT
from service.settings import Settings
from service.workers.board import EVERY_MODEL, Board, Place
from service.workers.server import WorkerServer
from service.workers.supervisor import PARENT_VARIABLE
from tests.processes import end_group, python_program
from tests.service.conftest import nothing_behind
from tests.service.server import (
    START_SECONDS,
    wait_for,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

FAILING = """
import sys, time
from service.workers.board import Board
from service.workers.supervisor import Supervisor

def fail(place, lifeline):
    print(time.monotonic(), flush=True)
    sys.exit(7)

Supervisor(Board(1), fail, 1.0).run()
"""


def test_a_worker_that_cannot_start_is_retried_at_growing_intervals():
    with python_program(FAILING) as process:
        assert process.stdout is not None
        starts = [float(process.stdout.readline()) for _ in range(5)]
        process.terminate()
        assert process.wait(START_SECONDS) == 0
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # Only the minimum wait is guaranteed; a slow machine waits longer.
    for pause, promised in zip(pauses, (0.2, 0.4, 0.8, 1.6), strict=True):
        assert pause >= promised * 0.99


KEEPING = """
import os, signal
from service.workers.board import Board
from service.workers.supervisor import Supervisor

def serve(place, lifeline):
    print(os.getpid(), flush=True)
    signal.pause()

Supervisor(Board(1), serve, 1.0).run()
"""


def test_a_stopped_and_continued_supervisor_acts_on_no_signal():
    """An interrupted sigtimedwait() may return a signal that was never sent."""
    with python_program(KEEPING) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        for _ in range(3):
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 0.6, "its wait is over")  # noqa: B023
            process.send_signal(signal.SIGCONT)
        os.kill(worker, signal.SIGKILL)
        assert int(process.stdout.readline() or 0) not in (0, worker)
        process.terminate()
        assert process.wait(START_SECONDS) == 0


def test_a_supervisor_without_its_bentoml_process_starts_no_worker(tmp_path: Path):
    """BentoML was killed while its supervisor was importing: the parent is another one."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPING],
            cwd=PROJECT_ROOT,
            env={**os.environ, PARENT_VARIABLE: str(gone.pid)},
            stdout=output,
            start_new_session=True,
        )
    try:
        assert process.wait(START_SECONDS) == 0
        assert (tmp_path / "output").read_text() == ""
    finally:
        end_group(process)


FORKING = """
import logging, os, sys, threading
from service.telemetry.logs import configure_logging
from service.workers.board import Board
from service.workers.supervisor import Supervisor

configure_logging()
os.register_at_fork(before=lambda: os.write(2, b"%d\\n" % threading.active_count()))
Supervisor(Board(1), lambda place, lifeline: sys.exit(7), 1.0).run()
"""


def test_the_supervisor_forks_with_no_other_thread():
    """The death of the previous worker has been logged by then."""
    with python_program(FORKING) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        threads = [process.stderr.readline() for _ in range(3)]
        process.terminate()
        assert threads == 3 * ["1\n"]
        assert "worker" in process.stdout.readline()
        assert process.wait(START_SECONDS) == 0


def test_a_reload_announced_while_the_signal_is_ignored_is_carried_out():
    """A worker ignores SIGHUP until its server has started."""
    board = Board(1)
    place = Place(board, board.take_row(os.getpid()))
    board.next_reload(EVERY_MODEL)
    reloads: list[int] = []

    async def main() -> None:
        lifeline, end = os.pipe()
        with socket.socket() as listener:
            config = uvicorn.Config(nothing_behind, lifespan="off", log_config=None)
            server = WorkerServer(
                config,
                listener,
                Settings(device="cpu"),
                place,
                lambda: True,
                lifeline,
                lambda: reloads.append(board.last_reload),
            )
            config.load()
            server.lifespan = config.lifespan_class(config)
            await server.startup()
            asyncio.get_running_loop().remove_reader(lifeline)
        for descriptor in (lifeline, end):
            os.close(descriptor)

    asyncio.run(main())
    assert reloads == [1]
