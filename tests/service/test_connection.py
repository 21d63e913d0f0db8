"""One connection's bytes, parsed in process: what reaches the application, and what is held."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from service.problems import Kind
from service.workers.board import Place
from service.workers.connection import Connection
from service.workers.heads import END_OF_HEAD, MAX_HEAD_BYTES, HeadEnd
from service.workers.progress import SLOWEST_BYTES_PER_SECOND, WriteProgress

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written, and says whether more is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.closed = self.ended = False
        self.unsent = 0

    def write(self, data: Any) -> None:
        assert not self.closed, "written to a closed transport"
        assert not self.ended, "written after the end"
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("::ffff:192.0.2.1", 5), "sockname": ("::1", 80)}.get(name, default)


class Client:
    """Sends to a connection whose application answers when it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        """(scope, body) of each that has reached the application."""
        self.gone = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refused: list[Kind] = []
        config = uvicorn.Config(
            self._answer,
            http=Connection,
            ws="none",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        Connection.place = Place.alone()
        Connection.count = staticmethod(self.refused.append)
        self.connection = Connection(config, ServerState(), {})
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more and scope["path"] != "/unread":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.requests.append((scope, body))
        await self.may_answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(self, *packets: bytes) -> None:
        """Send as one that keeps to flow control, and let everything happen that can."""
        for packet in packets:
            while not self.transport.reads:
                await asyncio.sleep(0)
            self.connection.data_received(packet)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def statuses(self) -> list[int]:
        lines = self.transport.written.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]

    def stop(self) -> None:
        self.connection._unset_keepalive_if_required()


Scenario = Callable[[Client], Awaitable[None]]


@pytest.fixture
def talk() -> Iterator[Callable[[Scenario], Client]]:
    def run(scenario: Scenario) -> Client:
        async def main() -> Client:
            client = Client()
            await scenario(client)
            client.stop()
            return client

        return asyncio.run(main())

    return run


def test_one_request_at_a_time_is_parsed_and_the_rest_not_read(talk):
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


def test_few_requests_are_parsed_behind_a_chunked_body(talk):
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
def test_packets_may_be_cut_anywhere(talk, size):
    """Two pipelined requests with bodies, one chunked, look the same however they arrive."""
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


def test_trailers_are_no_headers(talk):
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


def test_a_head_is_bounded_exactly(talk):
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


def test_where_a_head_ends_is_found_however_it_is_cut():
    head, more = GET, b"\r\n\r\nbody\r\n\r\n"
    for first in range(len(head)):
        for second in range(first, len(head)):
            ends = HeadEnd()
            for part in (head[:first], head[first:second]):
                assert ends.find(part, 0) == len(part)
            rest = head[second:] + more
            assert ends.find(rest, 0) == len(head) - second


def test_a_client_that_has_sent_all_gets_its_answer(talk):
    async def scenario(client: Client) -> None:
        client.may_answer.clear()
        await client.send(GET + GET)
        assert client.connection.eof_received()
        client.may_answer.set()
        await client.settle()
        assert client.transport.closed

    assert talk(scenario).statuses == [200, 200]


def test_a_client_that_leaves_in_a_body_is_let_go(talk):
    async def scenario(client: Client) -> None:
        await client.send(CHUNKED)
        assert not client.connection.eof_received()
        client.connection.connection_lost(None)
        await client.settle()

    assert talk(scenario).gone == 1


def test_pipelined_requests_of_a_client_that_has_gone_are_dropped(talk):
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
def test_an_early_answer_ends_the_connection_but_reads_on_for_a_while(talk, expects):
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


def test_what_is_discarded_has_a_bound(talk):
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


def test_garbage_behind_a_whole_request_does_not_cost_its_answer(talk):
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
def test_what_cannot_be_parsed_is_a_counted_problem(talk, sent):
    async def scenario(client: Client) -> None:
        await client.send(sent)

    client = talk(scenario)
    assert client.statuses == [400]
    assert client.refused == [Kind.MALFORMED]
    assert b"content-type: application/problem+json" in client.transport.written


def test_an_ipv4_client_on_the_common_listener_has_its_ipv4_address(talk):
    async def scenario(client: Client) -> None:
        await client.send(GET)

    ((scope, _),) = talk(scenario).requests
    assert scope["client"] == ("192.0.2.1", 5)


def test_a_client_that_takes_nothing_is_given_up(talk):
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


def test_a_slow_client_that_takes_its_answer_is_not():
    transport, progress = Transport(), WriteProgress()
    transport.unsent = 100 * SLOWEST_BYTES_PER_SECOND
    for second in range(60):
        assert not progress.is_stalled(transport, second, 10)
        transport.unsent -= SLOWEST_BYTES_PER_SECOND
    assert progress.is_stalled(transport, 100, 10)  # 60 taken at once, then nothing


SEGMENTS = (
    GET,
    b"POST /a HTTP/1.1\r\nContent-Length: 7\r\n\r\n\r\n\r\nabc",
    b"POST /a HTTP/1.1\r\ncontent-length:0\r\n\r\n",
    CHUNKED + b"2\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\nX: y\r\n\r\n",
    b"POST /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST /unread HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b"garbage\r\n\r\n",
    b"GET /a",
    b"\x00",
    CHUNKED + b"zz\r\n",
)


def exchange(packets: list[bytes]) -> tuple[list[tuple[str, bytes]], list[int]]:
    """(what reached the application, statuses of the answers)"""

    async def main() -> Client:
        client = Client()
        for packet in packets:
            if client.transport.closed:
                break
            client.connection.data_received(packet)
            await client.settle()
            while not client.transport.reads:
                await client.settle()
        client.stop()
        return client

    client = asyncio.run(main())
    return [(scope["path"], body) for scope, body in client.requests], client.statuses


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(SEGMENTS) | st.binary(max_size=4), min_size=1, max_size=6),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_what_is_answered_does_not_depend_on_packets(segments, cuts):
    whole = b"".join(segments)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    packets = [whole[a:b] for a, b in itertools.pairwise(edges)]
    at_once, in_parts = exchange([whole]), exchange(packets)
    # Where something unparsable follows a whole request, whether that is refused as well is for
    # the packets to say; never what reaches the application.
    assert at_once[0] == in_parts[0]
    assert [one for one in at_once[1] if one == 200] == [one for one in in_parts[1] if one == 200]
    assert len(at_once[1]) <= len(segments) + 1
