"""Tests of workers with real processes and signals: crashes, spread of connections, shutdown."""

import asyncio
import concurrent.futures
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cifar10.store import ModelStore
from service.edge import Edge
from service.models import ModelSet
from service.settings import Settings
from service.workers.board import STALE_MS, Board, Field, Place, shared_clock_ms
from service.workers.supervisor import PARENT_VARIABLE
from tests.service.cases import PNG
from tests.service.conftest import nothing_behind, running
from tests.service.server import (
    START_SECONDS,
    Server,
    connections_of,
    port_of,
    supervisor_of,
    wait_for,
    workers_of,
)

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


def test_connections_are_spread_evenly(server: Server):
    held = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(CONNECTIONS)]
    try:
        wait_for(lambda: connections_of(server).total() == CONNECTIONS, "all are accepted")
        assert min(connections_of(server).values()) >= CONNECTIONS // 4
    finally:
        for connection in held:
            connection.close()


def classify(url: str) -> int:
    """Return the status of one request on a new connection; 0 without an answer."""
    try:
        return httpx.post(f"{url}/classify", content=PNG, timeout=30).status_code
    except httpx.TransportError:
        return 0


def test_a_killed_worker_is_replaced_and_loses_only_its_own_requests(server: Server):
    before = workers_of(server)
    victim = min(before)
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(classify, server.url) for _ in range(200)]
        os.kill(victim, signal.SIGKILL)
        statuses = Counter(one.result() for one in asked)
    # Each caller has one request at a time, so at most one per caller was in the killed worker.
    assert statuses[200] >= 200 - 4, statuses
    assert set(statuses) <= {200, 0}, statuses
    wait_for(lambda: len(workers_of(server) - {victim}) == 2, "there are two workers again")
    server.wait_until_ready()
    assert before - {victim} < workers_of(server)
    assert httpx.get(f"{server.url}/readyz").json()["workers"] == {"ready": 2, "of": 2}


def test_readiness_reports_a_missing_worker(tiny_store: Path):
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


def test_killing_the_supervisor_interrupts_no_request(server: Server):
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


def test_no_process_outlives_bentoml(server: Server):
    processes = [supervisor_of(server), *supervisor_of(server).children()]
    assert processes[0].environ()[PARENT_VARIABLE] == str(server.process.pid)
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=START_SECONDS)
    assert alive == []


def test_shutdown_finishes_accepted_requests(server: Server):
    """A body that is arriving at the time of SIGTERM is read, classified and answered."""
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


def test_shutdown_does_not_wait_for_a_client_that_never_finishes(tmp_path: Path, tiny_store: Path):
    server = Server(tmp_path, tiny_store, CIFAR10_DRAIN_SECONDS="1")
    try:
        server.wait_until_ready()
        with socket.create_connection(("127.0.0.1", port_of(server))) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(START_SECONDS) == 0
    finally:
        server.kill()
