"""Workers that die, connections that are shared out, and the end: real processes and signals."""

import asyncio
import concurrent.futures
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn

from cifar10.environment import PROJECT_ROOT
from cifar10.store import ModelStore
from service.edge import Edge
from service.models import ModelSet
from service.settings import Settings
from service.workers.board import EVERY_MODEL, STALE_MS, Board, Field, Place, shared_clock_ms
from service.workers.server import WorkerServer
from service.workers.supervisor import PARENT_VARIABLE
from tests.service.cases import PNG
from tests.service.conftest import nothing_behind, running
from tests.service.test_serve import START_SECONDS, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

CONNECTIONS = 32


@pytest.fixture
def server(tmp_path: Path, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path, tiny_store, CIFAR10_WORKERS="2")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def supervisor_of(server: Server) -> psutil.Process:
    return psutil.Process(server.process.pid).children()[0]


def workers_of(server: Server) -> set[int]:
    return {child.pid for child in supervisor_of(server).children()}


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def connections_of(server: Server) -> Counter[int]:
    return Counter(
        {
            pid: sum(
                one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port_of(server)
                for one in psutil.Process(pid).net_connections("tcp")
            )
            for pid in workers_of(server)
        }
    )


def test_connections_are_shared_out_evenly(server: Server):
    held = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(CONNECTIONS)]
    try:
        wait_for(lambda: connections_of(server).total() == CONNECTIONS, "all are accepted")
        assert min(connections_of(server).values()) >= CONNECTIONS // 4
    finally:
        for connection in held:
            connection.close()


def classify(url: str) -> int:
    """The status of one request on a connection of its own; 0 without an answer."""
    try:
        return httpx.post(f"{url}/classify", content=PNG, timeout=30).status_code
    except httpx.TransportError:
        return 0


def test_a_killed_worker_is_replaced_and_takes_only_its_own_requests(server: Server):
    before = workers_of(server)
    victim = min(before)
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(classify, server.url) for _ in range(200)]
        os.kill(victim, signal.SIGKILL)
        statuses = Counter(one.result() for one in asked)
    # A caller has one request at a time: no more than all of them were in the killed worker.
    assert statuses[200] >= 200 - 4, statuses
    assert set(statuses) <= {200, 0}, statuses
    wait_for(lambda: len(workers_of(server) - {victim}) == 2, "there are two workers again")
    server.wait_until_ready()
    assert before - {victim} < workers_of(server)
    assert httpx.get(f"{server.url}/readyz").json()["workers"] == {"ready": 2, "of": 2}


def test_readiness_tells_of_a_worker_that_is_not_there(tiny_store: Path):
    board = Board(2)
    here, there = (Place(board, board.take_row(process)) for process in (1, 2))
    settings = Settings(device="cpu", default_model="tiny_a")
    edge = Edge(nothing_behind, settings, ModelSet(settings, ModelStore(tiny_store)), place=here)

    async def main() -> list[httpx.Response]:
        async with running(edge) as client:
            answers = [await client.get("/readyz"), await client.get("/v2/health/ready")]
            there.set_ready(True)
            answers += [await client.get("/readyz"), await client.get("/v2/health/ready")]
            there.beat()
            answers.append(await client.get("/readyz"))
            board.put(there.row, Field.BEAT, shared_clock_ms() - STALE_MS - 1)
            answers.append(await client.get("/readyz"))
            board.free_row(there.row)
            return [*answers, await client.get("/readyz")]

    alone, alone_v2, both, both_v2, beating, stuck, alone_again = asyncio.run(main())
    assert (alone.status_code, alone_v2.status_code, alone_again.status_code) == (503, 503, 503)
    assert (both.status_code, both_v2.status_code, beating.status_code) == (200, 200, 200)
    assert (stuck.status_code, stuck.json()["workers"]) == (503, {"ready": 1, "of": 2})
    assert alone_again.json()["workers"] == {"ready": 1, "of": 2}
    assert both.json()["workers"] == {"ready": 2, "of": 2}


def test_killing_the_supervisor_interrupts_nobody(server: Server):
    old, workers = supervisor_of(server), workers_of(server)
    old.kill()
    refused = 0
    deadline = time.monotonic() + START_SECONDS
    while any(psutil.pid_exists(pid) for pid in workers):
        refused += classify(server.url) != 200
        assert time.monotonic() < deadline, "the old workers never ended"
    assert refused == 0
    server.wait_until_ready()
    assert supervisor_of(server).pid != old.pid
    assert not workers & workers_of(server)


def test_nothing_outlives_bentoml(server: Server):
    processes = [supervisor_of(server), *supervisor_of(server).children()]
    assert processes[0].environ()[PARENT_VARIABLE] == str(server.process.pid)
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=START_SECONDS)
    assert alive == []


def test_the_end_lets_accepted_work_finish(server: Server):
    """A body that is on its way when SIGTERM comes is read, classified and answered."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=30) as client:
        head = f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: {len(PNG)}\r\n\r\n"
        client.sendall(head.encode() + PNG[:10])
        in_flight = re.compile(r"^cifar10_requests_in_flight(?:\{.*\})? 2\.0$", re.M)
        wait_for(
            lambda: in_flight.search(httpx.get(f"{server.url}/metrics").text), "it is accepted"
        )
        server.process.send_signal(signal.SIGTERM)
        client.sendall(PNG[10:])
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(START_SECONDS) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


def test_the_end_comes_though_a_client_never_finishes(tmp_path: Path, tiny_store: Path):
    server = Server(tmp_path, tiny_store, CIFAR10_DRAIN_SECONDS="1")
    try:
        server.wait_until_ready()
        with socket.create_connection(("127.0.0.1", port_of(server))) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(START_SECONDS) == 0
    finally:
        server.kill()


FAILING = """
import sys, time
from service.workers.board import Board
from service.workers.supervisor import Supervisor

def fail(place, lifeline):
    print(time.monotonic(), flush=True)
    sys.exit(7)

Supervisor(Board(1), fail, 1.0).run()
"""


def test_a_worker_that_cannot_start_is_tried_ever_more_rarely():
    command = [sys.executable, "-c", FAILING]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        starts = [float(process.stdout.readline()) for _ in range(5)]
        process.terminate()
        assert process.wait(START_SECONDS) == 0
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # What is promised is the least that it waits; a slow machine only makes it more.
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


def test_a_supervisor_that_was_stopped_takes_that_for_no_signal():
    """sigtimedwait() that is interrupted at its end returns a signal that never came."""
    command = [sys.executable, "-c", KEEPING]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
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


def test_a_supervisor_whose_bentoml_is_gone_before_it_begins_starts_nothing(tmp_path: Path):
    """Killed while its supervisor imports, it is no parent by which the end could be told."""
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
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


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
    """It has logged the death of the worker before."""
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        threads = [process.stderr.readline() for _ in range(3)]
        process.terminate()
        assert threads == 3 * ["1\n"]
        assert "worker" in process.stdout.readline()
        assert process.wait(START_SECONDS) == 0


def test_a_reload_that_was_announced_before_the_signal_is_heard_is_made_up_for():
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


SLOW = {"CIFAR10_HEADER_SECONDS": "1", "CIFAR10_MAX_CONNECTIONS": "4"}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("strict"), tiny_store, **SLOW)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def read_all(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"408"),
        (b"POST /classify HT", b"408"),
        (b"POST /classify HTTP/1.1\r\nHost: a\r\nX-", b"408"),
        (b"\r\n", b"408"),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000, b"431"),
        (b"no http at all\r\n\r\n", b"400"),
    ],
)
def test_a_head_that_never_ends_ends_the_connection(
    strict_server: Server, sent: bytes, status: bytes
):
    with socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30) as client:
        client.sendall(sent)
        assert read_all(client).split(b" ")[1] == status


def test_a_kept_connection_that_dribbles_is_ended(strict_server: Server):
    """Empty lines are no request, and stop uvicorn's own timer."""
    with socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while b'"live"}' not in received:
            received += client.recv(65536)
        client.sendall(b"\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    assert refusals(strict_server, "head-timeout") > 0


def refusals(server: Server, reason: str) -> float:
    """How many the metrics tell of."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'^cifar10_rejected_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_connections_above_the_bound_are_told_so(strict_server: Server):
    held: list[socket.socket] = []
    try:
        refused = b""
        for _ in range(12):
            one = socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30)
            held.append(one)
            # Not idle: such a one would make room for the next.
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\nPOST /classify HT")
            refused = one.recv(65536)
            if b" 200 " not in refused[:20]:
                break
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"too-many-connections" in refused
        assert 4 <= len(held) <= 6
    finally:
        for one in held:
            one.close()
    strict_server.wait_until_ready()
    assert refusals(strict_server, "too-many-connections") > 0
