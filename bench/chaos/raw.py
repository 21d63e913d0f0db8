"""Raw HTTP/1.1 for attacks: requests as bytes, parsed responses, sockets with time limits.

An ordinary client would refuse to send an attack's requests. Only connections to loopback addresses
are allowed.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load.client import NO_ANSWER
from cifar10.errors import BenchError

BOUNDARY: Final = "chaos"
_CONNECT_SECONDS: Final = 10.0
_READ_BYTES: Final = 1 << 16
_MOST_ANSWER_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Target:
    """Address and duration of an attack."""

    host: str
    port: int
    model: str
    seed: int
    seconds: float

    @property
    def infer_route(self) -> str:
        """Return the model's inference route in the v2 protocol."""
        return f"/v2/models/{self.model}/infer"


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request_bytes(
    method: str,
    route: str,
    body: bytes | None = None,
    headers: Iterable[tuple[str, str]] = (),
    *,
    chunked: bool = False,
) -> bytes:
    """Return a whole request.

    Its head has the body's length, unless it is ``chunked``; then the caller adds the last chunk.
    """
    lines = [f"{method} {route} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if body is None:
        return head
    return head + (b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)


def form_bytes(images: Sequence[bytes], name: str = "image") -> bytes:
    """Return a ``multipart/form-data`` body with a part for each image."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return b"".join(head + one + b"\r\n" for one in images) + f"--{BOUNDARY}--\r\n".encode()


FORM_TYPE: Final = f"multipart/form-data; boundary={BOUNDARY}"


def answers_in(data: bytes) -> tuple[list[Answer], bytes]:
    """Return the complete responses at the start of ``data``, and the remaining bytes.

    Interim responses (1xx) are left out.
    """
    found: list[Answer] = []
    at = 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        first, *lines = data[at:end].decode("latin-1").split("\r\n")
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            break
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        start = end + 4
        status = int(parts[1])
        if 100 <= status < 200:
            at = start
            continue
        if headers.get("transfer-encoding") == "chunked":
            body, stop = _unchunked(data, start)
        else:
            length = headers.get("content-length", "0")
            stop = start + (int(length) if length.isdigit() else 0)
            body = data[start:stop]
        if stop is None or stop > len(data):
            break
        found.append(Answer(status, headers, body))
        at = stop
    return found, data[at:]


def _unchunked(data: bytes, at: int) -> tuple[bytes, int | None]:
    body = b""
    while (line_end := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:line_end].partition(b";")[0], 16)
        except ValueError:
            return body, None
        at = line_end + 2
        if size == 0:
            return body, at + 2
        body += data[at : at + size]
        at += size + 2
    return body, None


def connect(target: Target, *, receive_buffer: int | None = None) -> socket.socket:
    """Return a connected TCP socket.

    Args:
        target: address to connect to; only loopback is accepted.
        receive_buffer: size of the socket's receive buffer in bytes; with a small one the server's
            writes soon block.

    Raises:
        BenchError: the address is not this machine's loopback.
        OSError: the connection failed.
    """
    check_loopback(target.host)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(_CONNECT_SECONDS)
    try:
        made.connect((target.host, target.port))
    except OSError:
        made.close()
        raise
    return made


def check_loopback(host: str) -> None:
    """Raise an error unless the address is loopback.

    Raises:
        BenchError: the address is not loopback; attacks may only target a server on this machine.
    """
    if not ipaddress.ip_address(host).is_loopback:
        message = f"attacks are sent to loopback addresses only, not to {host}"
        raise BenchError(message)


async def exchange(
    target: Target, pieces: Sequence[bytes], *, seconds: float, answers: int = 1
) -> list[Answer]:
    """Send ``pieces`` on a new connection and return the responses.

    Reading ends after ``answers`` responses, when the server closes, or when the time is over.
    """
    check_loopback(target.host)
    received = b""
    writer = None
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(target.host, target.port)
            sending = asyncio.ensure_future(_send(writer, pieces))
            try:
                while len(received) < _MOST_ANSWER_BYTES:
                    data = await reader.read(_READ_BYTES)
                    if not data:
                        break
                    received += data
                    if len(answers_in(received)[0]) >= answers:
                        break
            finally:
                sending.cancel()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await sending
    if writer is not None:
        writer.transport.abort()
    return answers_in(received)[0]


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


async def send_paced(
    target: Target,
    requests: Sequence[Sequence[bytes]],
    per_second: float,
    *,
    wait_seconds: float = 12.0,
    most_open: int = 32,
    look: Callable[[int, list[Answer]], None] = lambda number, answers: None,
) -> Counter[int]:
    """Send the requests in turn at a steady rate for ``target.seconds``, each on a new connection.

    Args:
        target: address and duration.
        requests: requests, each as the pieces in which it is sent.
        per_second: rate; sending pauses while ``most_open`` requests are outstanding.
        wait_seconds: timeout for each response.
        most_open: maximum number of concurrent connections.
        look: receives the number of each request and its responses.

    Returns:
        Number of requests by status; :data:`NO_ANSWER` if the connection ended or timed out.
    """
    statuses: Counter[int] = Counter()
    free = asyncio.Semaphore(most_open)
    loop = asyncio.get_running_loop()

    async def one(number: int) -> None:
        try:
            pieces = requests[number % len(requests)]
            found = await exchange(target, pieces, seconds=wait_seconds)
        finally:
            free.release()
        statuses[found[0].status if found else NO_ANSWER] += 1
        look(number, found)

    start, number = loop.time(), 0
    async with asyncio.TaskGroup() as tasks:
        while (ahead := start + number / per_second - loop.time()) < target.seconds and (
            loop.time() - start < target.seconds
        ):
            if ahead > 0:
                await asyncio.sleep(ahead)
            await free.acquire()
            tasks.create_task(one(number))
            number += 1
    return statuses


@dataclass(frozen=True)
class AttackResult:
    """The attackers' results in one window."""

    statuses: Mapping[int, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    """Counts, which are added up over windows."""
