"""Tests of driving a server (connect, run a loop, close) in virtual time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bench.load.drive import Driver, connected
from bench.load.sent import Sent
from cifar10.errors import BenchError
from tests.bench.virtual_time import run_virtually


class FakeClient:
    """Client whose requests are answered after 10 ms, every fifth with a 503."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.closed = 0

    async def open_connections(self, count: int) -> None:
        self.opened.append(count)

    async def send(self, number: int) -> int:
        await asyncio.sleep(0.01)
        return 503 if number % 5 == 4 else 200

    def close(self) -> None:
        self.closed += 1


def virtually(work: Coroutine[Any, Any, Sent]) -> tuple[Sent, float]:
    return run_virtually(work), 0.25


def test_a_closed_loop_has_a_connection_for_each_request_in_flight() -> None:
    client = FakeClient()
    driver = Driver(client, run=virtually)
    driven = driver.closed(users=2, seconds=0.095)
    assert (driven.sent.queries, driven.sent.failed, driven.cpu_share) == (20, 4, 0.25)
    driver.closed(users=3, seconds=0.01, requests_per_query=8)
    assert (client.opened, client.closed) == ([2, 24], 2)


def test_an_open_loop_sends_when_due() -> None:
    client = FakeClient()
    sent = Driver(client, run=virtually).open(100, 0.05, seed=0, shape="constant").sent
    assert sent.due_s.tolist() == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    assert sent.sent_s.tolist() == pytest.approx(sent.due_s.tolist())
    assert (sent.answered, client.opened, client.closed) == (4, [16], 1)


def test_an_exception_from_check_ends_the_loop_and_closes_connections() -> None:
    def died() -> None:
        message = "the server stopped by itself"
        raise BenchError(message)

    client = FakeClient()
    with pytest.raises(BenchError, match="stopped by itself"):
        Driver(client, died, virtually).closed(users=2, seconds=60)
    assert client.closed == 1


def test_connections_are_closed_after_an_exception() -> None:
    client = FakeClient()

    async def work() -> None:
        async with connected(client, 3) as same:
            assert same is client
            raise KeyError

    with pytest.raises(KeyError):
        run_virtually(work())
    assert (client.opened, client.closed) == ([3], 1)
