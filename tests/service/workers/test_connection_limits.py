"""Tests of limits on connections, with a real server: slow heads and too many connections."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.server import Server, port_of, read_all, refusals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

SLOW = {"CIFAR10_HEADER_SECONDS": "1", "CIFAR10_MAX_CONNECTIONS": "4"}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("strict"), tiny_store, **SLOW)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


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
def test_a_head_that_never_ends_closes_the_connection(
    strict_server: Server, sent: bytes, status: bytes
):
    with socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30) as client:
        client.sendall(sent)
        assert read_all(client).split(b" ")[1] == status


def test_a_kept_connection_that_sends_only_empty_lines_is_closed(strict_server: Server):
    """Empty lines are not a request, but they stop uvicorn's own timer."""
    with socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while b'"live"}' not in received:
            received += client.recv(65536)
        client.sendall(b"\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    assert refusals(strict_server, "head-timeout") > 0


def test_connections_above_the_limit_are_refused_with_the_reason(strict_server: Server):
    held: list[socket.socket] = []
    try:
        refused = b""
        for _ in range(12):
            one = socket.create_connection(("127.0.0.1", port_of(strict_server)), timeout=30)
            held.append(one)
            # Not idle, because an idle connection would be closed to make room for the next.
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
