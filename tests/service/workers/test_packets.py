"""Tests that a connection treats the same bytes alike, whatever packets they come in."""

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.workers.client import CHUNKED, GET, Client

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
    """Return (requests that reached the application, statuses of the answers)."""

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
def test_answers_do_not_depend_on_packets(segments, cuts):
    whole = b"".join(segments)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    packets = [whole[a:b] for a, b in itertools.pairwise(edges)]
    at_once, in_parts = exchange([whole]), exchange(packets)
    # If unparsable bytes follow a whole request, the packets decide whether those are refused too,
    # but never what reaches the application.
    assert at_once[0] == in_parts[0]
    assert [one for one in at_once[1] if one == 200] == [one for one in in_parts[1] if one == 200]
    assert len(at_once[1]) <= len(segments) + 1
