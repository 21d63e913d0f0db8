"""Tests of one connection's parsing, in process: which requests reach the application or are
held."""

import asyncio

import pytest

from service.problems import Kind
from service.workers.heads import END_OF_HEAD, MAX_HEAD_BYTES, HeadEnd
from service.workers.progress import SLOWEST_BYTES_PER_SECOND, WriteProgress
from tests.service.workers.client import CHUNKED, GET, Client, Transport


def test_only_one_request_at_a_time_is_parsed(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(GET * 8_000)
        assert len(client.requests) == 1
        assert len(client.connection.pipeline) == 0
        assert not client.transport.reads
        client.may_answer.set()
        while len(client.requests) < 8_000:
            await asyncio.sleep(0)
        await client.settle()
        assert client.transport.reads

    assert talk(scenario).statuses == [200] * 8_000


def test_the_number_of_requests_parsed_behind_a_chunked_body_is_limited(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(CHUNKED + b"0\r\n\r\n" + GET * 3)
        client.connection.data_received(GET * 5_000)
        await client.settle()
        assert len(client.connection.pipeline) <= 16
        client.may_answer.set()
        await client.settle()

    client = talk(scenario)
    assert client.statuses[:4] == [200] * 4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_requests_may_be_split_into_packets_anywhere(talk, size):
    """Two pipelined requests with bodies, one chunked, are parsed alike however they arrive."""
    whole = (
        b"POST /a HTTP/1.1\r\nHost: a\r\ncontent-length: 9\r\n\r\n\r\n\r\nGET /"
        + CHUNKED
        + b"3\r\nabc\r\n4;ext=1\r\nd\r\n\r\r\n0\r\nTrailer: t\r\n\r\n"
        + b"\r\n"
        + GET
    )

    async def scenario(client: Client) -> None:
        await client.send(*(whole[k : k + size] for k in range(0, len(whole), size)))

    client = talk(scenario)
    assert [body for _, body in client.requests] == [b"\r\n\r\nGET /", b"abcd\r\n\r", b""]
    assert client.statuses == [200] * 3


def test_trailers_are_not_taken_for_headers(talk):
    async def scenario(client: Client) -> None:
        await client.send(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: Bearer secret\r\n\r\n" + GET)

    client = talk(scenario)
    (scope, body), (after, _) = client.requests
    assert body == b"x"
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]
    assert [name for name, _ in after["headers"]] == [b"host"]


@pytest.mark.parametrize(
    "packet",
    [b"X: " + b"y" * 1_000 + b"\r\n", b"1\r\nx\r\n", b"1;" + b"y" * 1_000 + b"\r\nx\r\n"],
    ids=["trailers", "one-byte chunks", "extensions"],
)
def test_a_body_that_is_mostly_framing_is_refused_early(talk, packet):
    sent = 0

    async def scenario(client: Client) -> None:
        nonlocal sent
        await client.send(CHUNKED + (b"0\r\n" if packet.startswith(b"X") else b""))
        while not client.refused:
            await client.send(packet)
            sent += len(packet)
            assert sent < 200_000

    client = talk(scenario)
    assert client.refused == [Kind.TOO_LARGE]
    assert client.statuses == [413]
    assert client.gone == 1


@pytest.mark.parametrize("together", [True, False])
def test_an_upgrade_is_ignored_and_the_body_read(talk, together):
    head = (
        b"POST /a?b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 40\r\n\r\n"
    )
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".ljust(40, b"x")

    async def scenario(client: Client) -> None:
        await client.send(*([head + body + GET] if together else [head, body, GET]))

    client = talk(scenario)
    (scope, received), (after, _) = client.requests
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/a", b"b")
    assert b"upgrade" not in dict(scope["headers"])
    assert received == body
    assert after["path"] == "/a"
    assert client.statuses == [200, 200]


def test_a_chunked_body_after_an_upgrade_is_read(talk):
    head = CHUNKED.replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost")

    async def scenario(client: Client) -> None:
        await client.send(head, b"3\r\nabc\r\n0\r\n\r\n")

    assert [body for _, body in talk(scenario).requests] == [b"abc"]


def test_the_size_limit_of_a_head_is_exact(talk):
    def head(size: int) -> bytes:
        start = b"GET /a HTTP/1.1\r\nX: "
        return start + b"y" * (size - len(start) - 4) + END_OF_HEAD

    async def fits(client: Client) -> None:
        await client.send(head(MAX_HEAD_BYTES))

    async def one_more(client: Client) -> None:
        await client.send(head(MAX_HEAD_BYTES + 1))

    async def behind_a_body(client: Client) -> None:
        post = b"POST /a HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"
        await client.send(post, b"x" * 60_000 + b"GET /" + b"y" * 8_000, b" HTTP/1.1\r\n\r\n")

    assert talk(fits).statuses == [200]
    assert talk(one_more).statuses == [431]
    assert talk(behind_a_body).statuses == [200, 200]


def test_the_end_of_a_head_is_found_however_it_is_split():
    head, more = GET, b"\r\n\r\nbody\r\n\r\n"
    for first in range(len(head)):
        for second in range(first, len(head)):
            ends = HeadEnd()
            for part in (head[:first], head[first:second]):
                assert ends.find(part, 0) == len(part)
            rest = head[second:] + more
            assert ends.find(rest, 0) == len(head) - second


def test_a_client_that_has_closed_its_side_gets_its_answer(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(GET + GET)
        assert client.connection.eof_received()
        client.may_answer.set()
        await client.settle()
        assert client.transport.closed

    assert talk(scenario).statuses == [200, 200]


def test_a_connection_closed_within_a_body_ends(talk):
    async def scenario(client: Client) -> None:
        await client.send(CHUNKED)
        assert not client.connection.eof_received()
        client.connection.connection_lost(None)
        await client.settle()

    assert talk(scenario).gone == 1


def test_pipelined_requests_of_a_disconnected_client_are_dropped(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(CHUNKED + b"0\r\n\r\n" + GET * 3)
        client.connection.connection_lost(None)
        client.transport.closed = True
        client.may_answer.set()  # the transport refuses what is written now
        await client.settle()

    client = talk(scenario)
    assert client.statuses == []
    assert len(client.requests) == 1


POST_UNREAD = b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def test_an_early_answer_keeps_the_connection_for_a_small_body(talk):
    async def scenario(client: Client) -> None:
        await client.send(POST_UNREAD % 1_000)
        await client.send(b"x" * 500, b"x" * 500, GET)
        assert not client.transport.closed

    client = talk(scenario)
    assert client.statuses == [200, 200]
    assert b"connection: close" not in client.transport.written


@pytest.mark.parametrize("expects", [True, False])
def test_an_early_answer_closes_the_connection_after_discarding_for_a_while(talk, expects):
    head = POST_UNREAD % (1_000 if expects else 100_000_000)
    if expects:
        head = head.replace(b"Host", b"Expect: 100-continue\r\nHost")

    async def scenario(client: Client) -> None:
        await client.send(head)
        assert client.transport.ended
        await client.send(b"x" * 1_000_000, b"x" * 1_000_000)
        assert not client.transport.closed
        now = client.connection.loop.time()
        client.connection.check(now + 9, 10)
        assert not client.transport.closed
        client.connection.check(now + 11, 10)
        assert client.transport.closed

    client = talk(scenario)
    assert client.statuses == [200]
    assert b"connection: close" in client.transport.written


def test_the_number_of_discarded_bytes_is_limited(talk):
    async def scenario(client: Client) -> None:
        await client.send(POST_UNREAD % 10_000_000_000)
        for _ in range(64):
            await client.send(b"x" * (1 << 20))
            assert not client.transport.closed
        await client.send(b"x")
        assert client.transport.closed

    assert talk(scenario).statuses == [200]


def test_a_refused_body_that_never_ends_gets_no_second_answer(talk):
    async def scenario(client: Client) -> None:
        await client.send(POST_UNREAD % 1_000, b"x")
        client.connection.check(client.connection.loop.time() + 11, 10)
        assert client.transport.closed

    assert talk(scenario).statuses == [200]


def test_a_request_followed_by_garbage_gets_its_answer(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(CHUNKED + b"0\r\n\r\n" + b"garbage\r\n\r\n")
        client.may_answer.set()
        await client.settle()

    client = talk(scenario)
    assert client.statuses == [200]
    assert client.transport.ended
    assert client.refused == [Kind.MALFORMED]


@pytest.mark.parametrize(
    "sent",
    [
        b"no http at all\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_unparsable_requests_are_answered_and_counted(talk, sent):
    async def scenario(client: Client) -> None:
        await client.send(sent)

    client = talk(scenario)
    assert client.statuses == [400]
    assert client.refused == [Kind.MALFORMED]
    assert b"content-type: application/problem+json" in client.transport.written


def test_an_ipv4_client_on_the_dual_stack_listener_has_its_ipv4_address(talk):
    async def scenario(client: Client) -> None:
        await client.send(GET)

    ((scope, _),) = talk(scenario).requests
    assert scope["client"] == ("192.0.2.1", 5)


def test_a_client_that_reads_nothing_is_disconnected(talk):
    async def scenario(client: Client) -> None:
        await client.send(GET)
        client.transport.unsent = 100_000
        now = client.connection.loop.time()
        client.connection.check(now, 10)
        client.connection.check(now + 9, 10)
        assert not client.transport.closed
        client.connection.check(now + 11, 10)
        assert client.transport.closed

    talk(scenario)


def test_a_slow_client_that_reads_its_answer_is_not_disconnected():
    transport, progress = Transport(), WriteProgress()
    transport.unsent = 100 * SLOWEST_BYTES_PER_SECOND
    for second in range(60):
        assert not progress.is_stalled(transport, second, 10)
        transport.unsent -= SLOWEST_BYTES_PER_SECOND
    assert progress.is_stalled(transport, 100, 10)  # 60 taken at once, then nothing
