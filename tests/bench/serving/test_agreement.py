"""Generators, counts and histograms that agree or do not, and who is then said to be wrong."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from bench.load.client import BrokenAnswerError, HttpClient, parse_head
from bench.load.locust import LoadPlan, drive
from bench.load.loops import closed_loop, run
from bench.peers.ceiling import TRIVIAL, Ceiling
from bench.rows.kinds.scenario import AgreementMeasurement
from bench.serving.agreement import (
    AgreementPlan,
    Drive,
    RoundResult,
    agrees,
    compare_generators,
    disagreements,
    p50_ms,
    server_p50_bucket_ms,
)
from bench.serving.process import Server
from bench.serving.server_metrics import ServerFigures, median_bucket_ms, parse_metrics
from cifar10.errors import BenchError

METRICS = """\
# HELP cifar10_requests_total Requests answered
cifar10_requests_total{code="200",route="/classify"} 100.0
cifar10_requests_total{code="400",route="/classify"} 7.0
cifar10_requests_total{code="200",route="/readyz"} 3.0
cifar10_request_seconds_sum{route="/classify"} 0.25
cifar10_request_seconds_bucket{le="0.001",route="/classify"} 40.0
cifar10_request_seconds_bucket{le="0.002",route="/classify"} 90.0
cifar10_request_seconds_bucket{le="+Inf",route="/classify"} 100.0
cifar10_request_seconds_bucket{le="+Inf",route="/readyz"} 3.0
"""


def test_the_servers_figures_are_read_and_subtracted() -> None:
    found = parse_metrics(METRICS)
    assert found.answered == 100
    assert found.sum_s == 0.25
    assert found.buckets == ((0.001, 40), (0.002, 90), (math.inf, 100))
    assert median_bucket_ms(found.buckets) == (1.0, 2.0)
    nothing = found.since(found)
    assert nothing.answered == 0
    assert median_bucket_ms(nothing.buckets) is None
    assert parse_metrics("cifar10_requests_total").answered == 0  # no request yet
    with pytest.raises(BenchError, match="not this service"):
        parse_metrics("python_gc 1")


class FakeServer:
    """Counts what fake generators send it; its own time is 1.5 ms."""

    def __init__(self) -> None:
        self.answered, self.own_ms, self.sum_s = 0, 1.5, 0.0

    def read(self) -> ServerFigures:
        buckets = ((0.001, 0), (0.002, self.answered), (math.inf, self.answered))
        return ServerFigures(self.answered, buckets, self.sum_s)

    def generator(
        self, answer_ms: float, lost: int = 0, own_ms: float = 1.5, cpu_share: float = 0.2
    ) -> Drive:
        def drive(rate_per_s: float, seed: int) -> RoundResult:
            count = int(rate_per_s)
            self.answered += count
            self.sum_s += count * own_ms / 1e3
            return RoundResult(count - lost, np.full(count - lost, answer_ms), cpu_share)

        return drive


def compared(first: Drive, second: Drive, server: FakeServer, **more) -> AgreementMeasurement:
    return compare_generators(
        {"asyncio": first, "locust": second},
        server.read,
        200.0,
        AgreementPlan(rounds=3),
        device="cpu",
        **more,
    )


def test_all_agree() -> None:
    server = FakeServer()
    found = compared(server.generator(2.0), server.generator(2.19), server)
    assert agrees(found)
    assert found.rate_per_s == 100
    assert [(count.requests, count.server_requests) for count in found.counts] == [(300, 300)] * 2
    assert [p50_ms(count) for count in found.counts] == [2.0, 2.19]
    assert server_p50_bucket_ms(found.counts[0]) == (1.0, 2.0)


def test_one_lost_request_is_told() -> None:
    server = FakeServer()
    found = compared(server.generator(2.0), server.generator(2.0, lost=1), server)
    (said,) = disagreements(found)
    assert said.startswith("locust counts 297 requests, the server 300: the server answered")


def test_the_slower_generator_is_wrong_when_the_server_was_the_same() -> None:
    server = FakeServer()
    found = compared(server.generator(2.0), server.generator(3.0), server)
    (said,) = disagreements(found)
    assert "locust is wrong, for a generator can only add time" in said
    assert "1000 µs more" in said
    busy = compared(server.generator(2.0), server.generator(3.0, cpu_share=0.95), server)
    assert "used 95% of its core" in disagreements(busy)[0]
    ceilings = [Ceiling("locust", 16, 1, 120.0, 1.0, 1.0)]
    near = compared(server.generator(2.0), server.generator(3.0), server, ceilings=ceilings)
    assert "locust was at 83% of its own ceiling" in disagreements(near)[0]


def test_neither_is_wrong_when_the_server_itself_was_slower() -> None:
    server = FakeServer()
    found = compared(server.generator(2.0), server.generator(3.0, own_ms=2.2), server)
    (said,) = disagreements(found)
    assert "neither is wrong, the server itself took 2.2 ms" in said


def test_a_client_faster_than_the_server_has_a_wrong_clock() -> None:
    server = FakeServer()
    found = compared(server.generator(0.95), server.generator(0.95), server)
    assert len(disagreements(found)) == 2
    assert "its clock is wrong" in disagreements(found)[0]


def test_a_generator_without_answers() -> None:
    server = FakeServer()
    found = compared(server.generator(2.0), server.generator(2.0, lost=100), server)
    empty = dataclasses.replace(found.counts[1], server_requests=0)
    found = dataclasses.replace(found, counts=(found.counts[0], empty))
    assert disagreements(found) == ["locust got no answer"]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", (200, 5, True)),
        (b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nConnection: close", (503, 0, False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", (200, 5, False)),
    ],
)
def test_heads(head: bytes, expected: tuple) -> None:
    assert parse_head(head) == expected


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 x y\r\nContent-Length: 1"])
def test_heads_that_are_none(head: bytes) -> None:
    with pytest.raises(BrokenAnswerError, match="Content-Length"):
        parse_head(head)


def test_our_client_on_a_real_server_and_on_none(tmp_path: Path) -> None:
    """Every request is answered over few connections; a server that is killed is no answer."""
    with Server(tmp_path, command=TRIVIAL) as server:

        async def work() -> tuple[int, int]:
            client = HttpClient(server.url, "/classify", [b"x" * 2_000, b"y"])
            await client.open_connections(4)
            sent = await closed_loop(client.send, 4, 0.2)
            statuses = [await client.send(number) for number in range(10)]
            client.close()
            return int(sent.succeeded.sum() == sent.succeeded.size > 4), statuses.count(200)

        assert run(work()) == (1, 10)
        url = server.url

    async def alone() -> int:
        client = HttpClient(url, "/classify", [b"x"])
        return await client.send(0)

    assert run(alone()) == 0
    with pytest.raises(BenchError, match="no connection to"):
        run(HttpClient(url, "/classify", [b"x"]).open_connections(1))
    with pytest.raises(BenchError, match="http://"):
        HttpClient("https://example.org", "/classify", [b"x"])


def test_locust_at_a_rate_in_two_processes_keeps_its_report(tmp_path: Path) -> None:
    """Each process leaves its samples; all of them are counted, and no answer is cut off."""
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    report = tmp_path / "locust.html"
    plan = LoadPlan(8, 2, 0, processes=2, rate_per_s=100.0, shape="constant", html=report)
    with Server(tmp_path, command=TRIVIAL) as server:
        raw = drive(server.url, images, plan)
    assert 0 < raw.status.size <= 2 * 200
    assert set(raw.status.tolist()) == {200}
    assert (np.diff(raw.start_s + raw.response_ms / 1e3) >= 0).all()
    assert "<html" in report.read_text().lower()
