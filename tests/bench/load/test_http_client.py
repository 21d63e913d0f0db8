"""Tests of the HTTP client, also under an open loop that has fallen far behind."""

import asyncio
import contextlib
import errno
import fcntl
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from bench.load.client import NO_ANSWER, HttpClient
from bench.load.loops import open_loop, run

FIRST_UNWATCHABLE = 1_024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class SlowServer:
    """Server that answers at once or on command, and counts its connections."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.answer = asyncio.Event()
        if at_once:
            self.answer.set()
        self.open = self.most = self.asked = self.accepted = 0

    async def __aenter__(self) -> "SlowServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.accepted += 1
        self.most = max(self.most, self.open)
        try:
            while await reader.readuntil(b"\r\n\r\nx"):
                self.asked += 1
                await self.answer.wait()
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


def test_requests_wait_for_one_of_the_connections_and_all_are_answered() -> None:
    async def work() -> tuple[list[int], int]:
        async with SlowServer() as server:
            client = HttpClient(server.url, "/", [b"x"], most_connections=3)
            statuses = await asyncio.gather(*(client.send(number) for number in range(40)))
            client.close()
            return statuses, server.most

    assert run(work()) == ([200] * 40, 3)


@pytest.mark.parametrize(("idle_seconds", "connections"), [(60.0, 1), (-1.0, 5)])
def test_a_connection_that_was_idle_for_long_is_not_used_again(
    idle_seconds: float, connections: int
) -> None:
    """The server may be closing it at that moment."""

    async def work() -> tuple[list[int], int]:
        async with SlowServer() as server:
            client = HttpClient(server.url, "/", [b"x"], idle_seconds=idle_seconds)
            statuses = [await client.send(number) for number in range(5)]
            client.close()
            return statuses, server.accepted

    assert run(work()) == ([200] * 5, connections)


def test_a_closed_client_works_on_the_next_event_loop() -> None:
    """Requests had to wait for a connection on the first event loop."""

    async def serve_all(client_of: list[HttpClient]) -> list[int]:
        async with SlowServer() as server:
            if not client_of:
                client_of.append(HttpClient(server.url, "/", [b"x"], most_connections=1))
            client_of[0]._port = int(server.url.rpartition(":")[2])
            statuses = await asyncio.gather(*(client_of[0].send(number) for number in range(5)))
            client_of[0].close()
            return statuses

    kept: list[HttpClient] = []
    assert run(serve_all(kept)) == [200] * 5
    assert run(serve_all(kept)) == [200] * 5


def test_the_wait_for_a_connection_counts_from_when_the_request_was_due() -> None:
    """The server answers only when the last request is due, so the earliest waits longest."""

    async def work() -> np.ndarray:
        async with SlowServer(at_once=False) as server:
            client = HttpClient(server.url, "/", [b"x"], most_connections=2)
            asyncio.get_running_loop().call_later(0.2, server.answer.set)
            sent = await open_loop(client.send, 500, 0.2, seed=0, shape="constant")
            client.close()
            assert server.most == 2
            assert sent.succeeded.all()
            return sent.done_s - sent.due_s

    late_s = run(work())
    assert late_s.size == 100
    # Due at 0, 2, 4 … ms and answered from 200 ms on, whatever the machine was busy with.
    assert (late_s[:50] >= 0.1).all()


def test_a_late_open_loop_sends_while_it_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.loops.arrivals_s", lambda *_, **__: np.zeros(1_000))
    tasks_at_first_send = []

    async def send(number: int) -> int:
        if number == 0:
            tasks_at_first_send.append(len(asyncio.all_tasks()))
        return 200

    sent = run(open_loop(send, 1_000, 1, seed=0))
    assert sent.answered == 1_000
    assert tasks_at_first_send[0] < 10


def test_an_open_loop_that_is_cancelled_leaves_no_task() -> None:
    def tasks_of_the_loop() -> int:
        return sum("coro=<open_loop" in repr(task) for task in asyncio.all_tasks())

    async def work() -> int:
        async with SlowServer(at_once=False) as server:
            client = HttpClient(server.url, "/", [b"x"], most_connections=4)
            loop_of_requests = asyncio.ensure_future(open_loop(client.send, 10_000, 60, seed=0))
            while server.asked < 4:
                await asyncio.sleep(0)
            assert tasks_of_the_loop() > 1
            loop_of_requests.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loop_of_requests
            client.close()
            return tasks_of_the_loop()

    assert run(work()) == 0


def test_a_request_times_out() -> None:
    async def work() -> list[int]:
        async with SlowServer(at_once=False) as server:
            client = HttpClient(server.url, "/", [b"x"], most_connections=1, timeout_seconds=0.05)
            return await asyncio.gather(client.send(0), client.send(1))

    assert run(work()) == [NO_ANSWER] * 2


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * FIRST_UNWATCHABLE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_an_unwatchable_descriptor_fails_without_breaking_the_event_loop() -> None:
    async def work() -> int:
        loop = asyncio.get_running_loop()
        async with SlowServer() as server:
            with socket.socket() as one:
                descriptor = fcntl.fcntl(one, fcntl.F_DUPFD, FIRST_UNWATCHABLE)
            with (
                socket.socket(fileno=descriptor),
                pytest.raises(OSError, match="open files") as found,
            ):
                loop.add_reader(descriptor, print)
            assert found.value.errno == errno.EMFILE
            client = HttpClient(server.url, "/", [b"x"])
            status = await client.send(0)
            client.close()
            return status

    assert run(work()) == 200


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(serve: Serve, count: int) -> list[int]:
    """Return the statuses of successive requests to a server that answers like this."""
    serving = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "/", [b"x"])
    statuses = [await client.send(number) for number in range(count)]
    client.close()
    await asyncio.gather(*serving)
    server.close()
    await server.wait_closed()
    return statuses


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b"5;note=x\r\nhello\r\n1\r\n!\r\n0\r\n"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"\r\n", 200),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"Trailer: x\r\n\r\n", 200),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", NO_ANSWER),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n", 413),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"not HTTP at all\r\n\r\n", NO_ANSWER),
    ],
)
def test_an_answer_is_read_to_its_end_however_it_is_cut(answer: bytes, status: int) -> None:
    """Each byte arrives separately; the next request on the same connection is answered too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()

    assert run(ask(serve, 2)) == [status] * 2


def test_a_connection_that_the_server_ends_is_not_used_again() -> None:
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(1_000)
        writer.write(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    assert (run(ask(serve, 3)), accepted) == ([200] * 3, 3)
