"""Tests that a request with a known head is answered as if its head had been parsed."""

import asyncio
import random

import pytest

from service.workers.connection import Connection
from service.workers.known_heads import MAX_HEADS, KnownHeads
from tests.service.cases import JPEG, PNG
from tests.service.conftest import make_edge, running
from tests.service.test_protocol import INFER, PICTURES, ask, binary
from tests.service.workers.test_at_once import Caller, whole

REQUEST = whole(content=JPEG)
INFERENCES = (
    whole(url=INFER, **binary()),
    whole(url=INFER, **binary(PICTURES[:1], id="x")),
    whole(url=INFER, **ask(PICTURES[:1])),
    whole(url="/v2/models/%74iny_a/infer", **binary()),
)
IN_CHUNKS = (
    b"POST /classify HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG)
)
MUTATIONS = 400


class NothingKnown(KnownHeads):
    """Remembers no head."""

    def find(self, data):
        return None


@pytest.fixture
def heads(monkeypatch):
    """The heads that the connections of a test remember."""
    heads = KnownHeads()
    monkeypatch.setattr(Connection, "_known_heads", heads)
    return heads


async def settle(caller: Caller) -> None:
    """Wait for the answers to all whole requests."""
    connection = caller.connection
    while connection._held or (
        connection.cycle is not None
        and not connection.cycle.response_complete
        and not connection.cycle.more_body
    ):
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


async def outcome(caller: Caller, packets: list[tuple[bytes, bool]]) -> tuple[bytes, bool, bool]:
    """Return what is written in answer to packets, and whether the connection closed or ended.

    Args:
        caller: the connection.
        packets: what the client sends, and whether it waits for its answers after each.
    """
    for packet, waits in packets:
        if not caller.transport.closed:
            caller.connection.data_received(packet)
        if waits:
            await settle(caller)
    await settle(caller)
    return caller.transport.written, caller.transport.closed, caller.transport.ended


def mutated(chance: random.Random) -> list[bytes]:
    """Return packets of a request, or two, with faults."""
    usual = REQUEST, whole(content=PNG), whole(content=JPEG + b"\0"), *INFERENCES
    data = bytearray(chance.choice(usual))
    head = data.index(b"\r\n\r\n") + 4
    for _ in range(chance.choice([0, 0, 1, 2])):
        place = chance.randrange(chance.choice([head, len(data)]))
        kind = chance.randrange(4)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            del data[place]
        elif kind == 2:
            data[place:place] = chance.choice([b"\r\n", b"0", b"-", b"\0", b" ", b"+1", b"_"])
        else:
            data[place:place] = chance.choice(
                [
                    b"\r\nTransfer-Encoding: chunked",
                    b"\r\nContent-Length: 5",
                    b"\r\nInference-Header-Content-Length: 5",
                    b"\r\nConnection: close",
                    b"\r\nExpect: 100-continue",
                    b"\r\nUpgrade: h2c\r\nConnection: upgrade",
                ]
            )
    data += chance.choice([b"", b"", b"", REQUEST, REQUEST[:40], b"\r\n"])
    if chance.random() < 0.4:
        cut = chance.randrange(len(data) + 1)
        return [bytes(data[:cut]), bytes(data[cut:])]
    return [bytes(data)]


def test_faulty_requests_are_answered_as_without_known_heads(tiny_store, heads):
    async def main():
        edge = make_edge(tiny_store)
        async with running(edge):
            chance = random.Random(1)
            for number in range(MUTATIONS):
                packets = mutated(chance)
                knows, parses = Caller(edge, at_once=True), Caller(edge, at_once=True)
                parses.connection._known_heads = NothingKnown()
                before = chance.choices([REQUEST, IN_CHUNKS, *INFERENCES], k=chance.randrange(3))
                sent = [(one, chance.random() < 0.7) for one in (*before, *packets, REQUEST)]
                got, expected = await outcome(knows, sent), await outcome(parses, sent)
                assert got == expected, (number, sent)

    asyncio.run(main())


def test_a_head_is_known_whatever_the_length_of_the_body(tiny_store, heads, monkeypatch):
    async def main():
        edge = make_edge(tiny_store)
        async with running(edge):
            caller = Caller(edge, at_once=True)
            await caller.answer(REQUEST)
            monkeypatch.setattr(caller.connection, "parser", None)  # nothing is parsed from here on
            return [await caller.answer(whole(content=body)) for body in (JPEG, PNG, b"a cat")]

    answers = asyncio.run(main())
    assert [answer[9:12] for answer, _ in answers] == [b"200", b"200", b"415"]


def test_each_client_of_a_known_head_has_its_own_address(tiny_store, heads):
    addresses = []

    async def main():
        edge = make_edge(tiny_store)
        async with running(edge):
            begin = edge.begin
            for port in (1, 2):
                caller = Caller(edge, at_once=True)
                caller.connection.client = ("192.0.2.1", port)
                caller.connection.begin = lambda scope, body, reply: (
                    addresses.append(scope["client"]) or begin(scope, body, reply)
                )
                await caller.answer(REQUEST)

    asyncio.run(main())
    assert addresses == [("192.0.2.1", 1), ("192.0.2.1", 2)]


def test_a_task_is_given_the_length_of_its_own_body(tiny_store, heads):
    lengths = []

    async def main():
        edge = make_edge(tiny_store)
        async with running(edge):
            caller = Caller(edge, at_once=True)
            await caller.answer(REQUEST)
            app = caller.connection.app

            async def noting(scope, receive, send):
                lengths.append(dict(scope["headers"])[b"content-length"])
                await app(scope, receive, send)

            caller.connection.app = noting
            caller.connection.begin = lambda scope, body, reply: False
            await caller.answer(whole(content=PNG))

    asyncio.run(main())
    assert lengths == [str(len(PNG)).encode()]


def test_the_last_answer_on_one_connection_closes_no_other(tiny_store, heads):
    async def main():
        edge = make_edge(tiny_store)
        async with running(edge):
            last, other = Caller(edge, at_once=True), Caller(edge, at_once=True)
            last.connection.is_last = True
            answers = [(await caller.answer(REQUEST))[0] for caller in (last, other, other)]
            return answers, last.transport.closed, other.transport.closed

    answers, *are_closed = asyncio.run(main())
    assert [b"\r\nconnection: close\r\n" in answer for answer in answers] == [True, False, False]
    assert are_closed == [True, False]


def test_a_limited_number_of_short_heads_is_remembered(heads):
    scope = {"headers": [(b"content-length", b"1")]}

    def request(number: int, filler: str = "") -> bytes:
        return f"POST /{number} HTTP/1.1\r\nContent-Length: 1{filler}\r\n\r\n.".encode()

    for number in range(MAX_HEADS + 1):
        heads.remember(request(number), scope, keep_alive=True)
    assert heads.find(request(0)) is None
    assert heads.find(request(1)) is not None
    heads.remember(request(0, "\r\nA: " + "a" * 1000), scope, keep_alive=True)
    assert heads.find(request(1)) is not None
