"""Tests that a blocked, dead or full log does not stop the service: lines are dropped and
counted."""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cifar10.environment import PROJECT_ROOT
from service.telemetry.line_writer import LineWriter
from service.telemetry.logs import JsonFormatter, QueueingHandler
from service.telemetry.metrics import Metrics
from tests.service.server import (
    START_SECONDS,
    Server,
    supervisor_of,
    wait_for,
    workers_of,
)

LINE = b"x" * 999 + b"\n"


def notice(count: int) -> bytes:
    return f"{count} dropped\n".encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(descriptor)


def read_until(reader: int, end: bytes) -> bytes:
    received = b""
    while end not in received:
        received += os.read(reader, 1 << 16)
    return received


def test_lines_come_out_in_order(pipe):
    reader, writer = pipe
    lines = LineWriter(writer, notice)
    for number in range(100):
        lines.put(f"{number}\n".encode())
    assert read_until(reader, b"99\n") == b"".join(b"%d\n" % number for number in range(100))


def test_a_blocked_pipe_drops_lines_and_blocks_nobody(pipe):
    reader, writer = pipe
    lines = LineWriter(writer, notice, queue_bytes=10_000)
    dropped: list[int] = []
    lines.on_dropped = dropped.append
    for _ in range(1_000):  # a pipe takes 64 kB, the queue 10 kB
        lines.put(LINE)
    assert 900 < sum(dropped) < 1_000
    lines.flush(0.01)
    received = read_until(reader, b"dropped\n")  # once it is read again
    lines.flush(START_SECONDS)
    lines.put(b"end\n")
    received += read_until(reader, b"end\n")
    assert sum(map(int, re.findall(rb"(\d+) dropped\n", received))) == sum(dropped)
    assert received.count(LINE) + sum(dropped) == 1_000


@pytest.mark.parametrize("spoil", ["no reader", "closed"])
def test_lines_for_a_dead_log_are_counted(pipe, spoil):
    reader, writer = pipe
    lines = LineWriter(writer, notice)
    dropped: list[int] = []
    counted = threading.Event()

    def count(number: int) -> None:
        dropped.append(number)
        if sum(dropped) == 3:
            counted.set()

    lines.on_dropped = count
    os.close(reader if spoil == "no reader" else writer)
    for _ in range(3):
        lines.put(LINE)
    assert counted.wait(START_SECONDS)


def test_logging_resumes_when_a_full_disk_has_space_again(pipe):
    reader, writer = pipe
    full = os.open("/dev/full", os.O_WRONLY)
    lines = LineWriter(full, notice)
    refused = threading.Event()
    lines.on_dropped = lambda _: refused.set()
    lines.put(LINE)
    assert refused.wait(START_SECONDS)
    os.dup2(writer, full)
    lines.put(b"end\n")
    assert read_until(reader, b"end\n") == b"1 dropped\nend\n"


FORKING = """
import os
from cifar10.environment import PROJECT_ROOT
from service.telemetry.line_writer import LineWriter

lines = LineWriter(1, lambda count: b"")
lines.put(b"parent\\n")
lines.flush()
child = os.fork()
if not child:
    lines.put(b"child\\n")
    lines.flush()
    os._exit(0)
os.waitpid(child, 0)
lines.put(b"parent again\\n")
lines.flush()
"""


def test_a_forked_process_has_its_own_log_thread():
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("parent\nchild\nparent again\n", "")


def test_a_record_that_cannot_be_formatted_is_reported(pipe):
    reader, writer = pipe
    handler = QueueingHandler(LineWriter(writer, notice))
    handler.setFormatter(JsonFormatter())
    handler.handle(logging.LogRecord("a", logging.INFO, "", 0, "%d", ("no number",), None))
    assert b"cannot be formatted" in read_until(reader, b"\n")
    handler.handle(logging.LogRecord("a", logging.INFO, "", 0, "%d", (7,), None))
    assert json.loads(read_until(reader, b"\n"))["message"] == "7"


def test_dropped_lines_are_in_the_metrics(monkeypatch):
    from service.telemetry import logs

    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics()
    logs._writer.on_dropped(3)
    assert b"cifar10_log_lines_dropped_total 3.0" in metrics.render()


FAILING_CALLS = """
import logging
from grpc._cython.cygrpc import ExecuteBatchError
from service.telemetry.logs import configure_logging

configure_logging()
logging.basicConfig()
for error in (ExecuteBatchError("the client left"), ValueError("a defect")):
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._cython.cygrpc").exception("a call failed")
"""


def test_clients_that_leave_grpc_calls_cannot_flood_the_log():
    done = subprocess.run(
        [sys.executable, "-c", FAILING_CALLS],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a defect" in done.stderr
    assert "the client left" not in done.stderr


@pytest.fixture
def logged_to_a_pipe(tmp_path: Path, tiny_store: Path, pipe, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    server = Server(tmp_path, tiny_store, log_to=pipe[1], CIFAR10_ACCESS_LOG="1")
    os.close(pipe[1])
    try:
        server.wait_until_ready()
        yield server, pipe[0]
    finally:
        server.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_a_blocked_log_delays_neither_requests_nor_the_end(logged_to_a_pipe):
    server, _ = logged_to_a_pipe
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(1_000):  # more than a pipe holds
            assert client.get("/livez").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(START_SECONDS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_a_worker_is_replaced_even_if_the_log_is_dead(logged_to_a_pipe):
    server, reader = logged_to_a_pipe
    supervisor, (worker,) = supervisor_of(server), workers_of(server)
    os.close(reader)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: workers_of(server) - {worker}, "there is a new worker")
    server.wait_until_ready()
    assert supervisor_of(server) == supervisor
    assert supervisor.status() != psutil.STATUS_ZOMBIE
