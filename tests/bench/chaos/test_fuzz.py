"""Tests of the in-process fuzzer: failures by design, and continuing after a crash."""

import asyncio
import json
from collections import Counter

import pytest

from bench.chaos.fuzz import Fed, feed_around_crashes, split
from bench.chaos.in_process import UNDESIGNED, MemoryTransport, Snapshot, label_of, outcome_of
from bench.chaos.raw import Answer, Target, answers_in, check_loopback, request_bytes
from cifar10.errors import BenchError

PROBLEM = {"content-type": "application/problem+json; charset=utf-8"}


def problem(
    status: int, slug: str = "malformed", *, told: int | None = None, detail: str = "why"
) -> Answer:
    document = {"type": f"urn:x:{slug}", "status": told or status, "detail": detail}
    return Answer(status, PROBLEM, json.dumps(document).encode())


NO_DOCUMENT = f"{UNDESIGNED}: 400 without a problem document"


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (Answer(200, {}, b"{}"), "200"),
        (problem(422, "undecodable"), "422 undecodable"),
        (problem(503, "queue-full"), "503 queue-full"),
        (Answer(400, {"content-type": "application/json"}, b'{"error": "x"}'), "400 v2"),
        (problem(500, "internal"), f"{UNDESIGNED}: 500 internal"),
        (problem(400, told=404), f"{UNDESIGNED}: 400 malformed"),
        (problem(400, detail=""), f"{UNDESIGNED}: 400 malformed"),
        (Answer(400, {}, b"Invalid HTTP request."), NO_DOCUMENT),
        (Answer(400, {}, b"[]"), NO_DOCUMENT),
        (Answer(400, {}, b"{}"), f"{UNDESIGNED}: 400 v2"),
    ],
)
def test_a_refusal_is_designed_or_not(answer: Answer, label: str) -> None:
    assert label_of(answer) == label


def test_an_outcome_is_the_worst_of_the_answers() -> None:
    ok, bad = Answer(200, {}, b"{}"), problem(500, "internal")
    assert outcome_of([ok, ok], must_be_answered=True, ended_by_server=False) == "200"
    worst = outcome_of([ok, bad], must_be_answered=False, ended_by_server=True)
    assert worst == f"{UNDESIGNED}: 500 internal"
    none = outcome_of([], must_be_answered=True, ended_by_server=True)
    assert none == f"{UNDESIGNED}: no answer"
    closed = outcome_of([], must_be_answered=False, ended_by_server=True)
    assert closed == "closed without an answer"


def test_answers_are_read_from_bytes() -> None:
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    chunked = b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    found, rest = answers_in(one + interim + chunked + one[:-1])
    assert [(answer.status, answer.body) for answer in found] == [(200, b"{}"), (404, b"abc")]
    assert rest == one[:-1]
    assert answers_in(b"nonsense\r\n\r\n") == ([], b"nonsense\r\n\r\n")


def test_requests_as_bytes() -> None:
    assert request_bytes("GET", "/livez") == b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    posted = request_bytes("POST", "/", b"abc", (("A", "b"),))
    assert posted.endswith(b"A: b\r\nContent-Length: 3\r\n\r\nabc")
    assert request_bytes("POST", "/", b"abc", chunked=True).endswith(b"chunked\r\n\r\n3\r\nabc\r\n")
    assert Target("127.0.0.1", 1, "m", 0, 1.0).infer_route == "/v2/models/m/infer"


def test_attacks_refuse_non_loopback_addresses() -> None:
    check_loopback("127.0.0.1")
    check_loopback("::1")
    for other in ("10.0.0.1", "192.168.1.1", "8.8.8.8"):
        with pytest.raises(BenchError, match="loopback addresses only"):
            check_loopback(other)


class Service:
    """Service that some inputs crash, with a snapshot after every ``every`` inputs."""

    def __init__(self, deadly: set[int], every: int) -> None:
        self._deadly = deadly
        self._every = every
        self.fed: Counter[int] = Counter()

    def feed(self, first: int, count: int) -> tuple[Snapshot, int | None, str]:
        kept = Snapshot(first)
        since: list[int] = []
        for number in range(first, first + count):
            if number in self._deadly:
                return kept, number, "ended by SIGSEGV"
            since.append(number)
            if len(since) == self._every or number == first + count - 1:
                kept.following = number + 1
                kept.outcomes["raw: 200"] += len(since)
                self.fed.update(since)
                since = []
        return kept, None, ""


@pytest.mark.parametrize("deadly", [set(), {0}, {99}, {37, 38}, {5, 50, 95}])
def test_every_input_is_fed_once_around_crashes(deadly: set[int]) -> None:
    service = Service(deadly, every=10)
    found = feed_around_crashes(service.feed, 0, 100)
    assert service.fed == Counter(set(range(100)) - deadly)
    assert found.outcomes["raw: 200"] == 100 - len(deadly)
    assert found.crashes == [f"input {number} ended by SIGSEGV" for number in sorted(deadly)]


def test_inputs_are_split_into_ranges_without_gaps() -> None:
    assert split(10, 3) == [(0, 3), (3, 3), (6, 4)]
    assert split(1, 4) == [(0, 1)]
    assert sum(many for _, many in split(1_000_000, 7)) == 1_000_000


def test_findings_of_several_processes_are_added_up() -> None:
    whole = Fed()
    for number in (3, 8):
        part = Fed(crashes=[f"input {number} ended by SIGSEGV"])
        part.add(Snapshot(9, Counter({"raw: 200": 5}), Counter({200: 5}), [], number / 10, number))
        whole.add(part)
    assert (whole.outcomes["raw: 200"], whole.statuses[200], len(whole.crashes)) == (10, 10, 2)
    assert (whole.longest_cpu_s, whole.longest_number) == (0.8, 8)


def test_fuzz_gives_up_after_repeated_crashes() -> None:
    with pytest.raises(BenchError, match="gave up after 20 crashes: input 0"):
        feed_around_crashes(Service(set(range(100)), every=10).feed, 0, 100)


def test_a_snapshot_survives_its_file() -> None:
    found = Snapshot(7, Counter({"raw: 200": 6}), Counter({200: 6}), ["3: x"], 0.5, 3, [10, 11])
    assert Snapshot.from_json(found.to_json()) == found


def test_memory_transport_reports_connection_lost_once() -> None:
    class Told(asyncio.Protocol):
        ends = 0

        def connection_lost(self, error: Exception | None) -> None:
            self.ends += 1

    async def use() -> tuple[bytes, int]:
        transport, told = MemoryTransport(), Told()
        transport.set_protocol(told)
        transport.write(b"before")
        transport.close()
        transport.abort()
        transport.write(b"after")
        await asyncio.sleep(0)
        return bytes(transport.written), told.ends

    assert asyncio.run(use()) == (b"before", 1)
