"""Trial ``slow_readers``: clients send many requests and never read the responses.

Each unread response occupies the server's memory and its connection. The trial also requests the
largest response that a request can produce.
"""

import asyncio
import contextlib
import json
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import psutil  # type: ignore[import-untyped]

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.raw import AttackResult, Target, connect, exchange, request_bytes
from bench.chaos.trial import TrialRun

CONNECTIONS: Final = 60
ANSWERS_EACH: Final = 400
"""Number of pipelined requests on each connection, for responses of 55 kB."""
HOLD_SECONDS: Final = 45.0
STOP_SECONDS: Final = 20.0
"""Promised time in which SIGTERM ends a server whose clients do not read.

The time to finish accepted requests is 30 seconds by default.
"""
LARGEST_ANSWER_BYTES: Final = 1_000_000
_LARGE_ID_BYTES: Final = 9_000_000
_SMALL_BUFFER: Final = 4_096
_ESTABLISHED: Final = 1
"""Value of TCP_ESTABLISHED in Linux's ``tcp_states.h``."""


def wage(target: Target) -> AttackResult:
    """Hold connections without reading; count those that the server closes."""
    started = time.monotonic()
    largest = asyncio.run(_largest_answer(target))
    until = started + target.seconds
    opened = open_never_readers(target, CONNECTIONS)
    try:
        send_without_reading(opened, request_bytes("GET", "/openapi.json") * ANSWERS_EACH, until)
        while time.monotonic() < until and any(is_open(one) for one in opened):
            time.sleep(0.2)
        released = sum(not is_open(one) for one in opened)
    finally:
        for one in opened:
            one.close()
    return AttackResult(
        figures={
            "never_readers": float(len(opened)),
            "never_readers_released": float(released),
            "all_released_after_s": time.monotonic() - started,
            "largest_answer_bytes": float(largest),
        }
    )


def open_never_readers(target: Target, count: int) -> list[socket.socket]:
    """Open up to ``count`` connections with a receive buffer of a few kilobytes."""
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            opened.append(connect(target, receive_buffer=_SMALL_BUFFER))
    return opened


def send_without_reading(opened: Sequence[socket.socket], data: bytes, until: float) -> None:
    """Send ``data`` on every connection as far as the server accepts it."""
    left = dict.fromkeys(opened, memoryview(data))
    with selectors.DefaultSelector() as selector:
        for one in opened:
            one.setblocking(False)
            selector.register(one, selectors.EVENT_WRITE, data=one)
        while left and time.monotonic() < until:
            ready = selector.select(timeout=1.0)
            if not ready:  # no connection accepts more data
                return
            for key, _ in ready:
                one = key.data
                try:
                    left[one] = left[one][one.send(left[one][:65536]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    left[one] = memoryview(b"")
                if not left[one]:
                    del left[one]
                    selector.unregister(one)


def is_open(connection: socket.socket) -> bool:
    """Return whether the server keeps the connection open, without reading from it."""
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return False
    return state == _ESTABLISHED


async def _largest_answer(target: Target) -> int:
    pixels = np.zeros((1, 32, 32, 3), np.uint8).tobytes()
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, 32, 32, 3],
        "parameters": {"binary_data_size": len(pixels)},
    }
    head = json.dumps({"id": "i" * _LARGE_ID_BYTES, "inputs": [tensor]}).encode()
    headers = (
        ("Inference-Header-Content-Length", str(len(head))),
        ("Content-Type", "application/octet-stream"),
    )
    request = request_bytes("POST", target.infer_route, head + pixels, headers)
    found = await exchange(target, [request], seconds=15.0)
    return max((len(answer.body) for answer in found), default=0)


async def stop_with_never_readers(run: TrialRun) -> dict[str, float]:
    """Send SIGTERM while clients do not read; return the seconds that the server takes to end."""
    target = Target("127.0.0.1", run.server.port, run.model, run.plan.seed, 5.0)

    def stop() -> float:
        opened = open_never_readers(target, CONNECTIONS // 3)
        try:
            data = request_bytes("GET", "/openapi.json") * ANSWERS_EACH
            send_without_reading(opened, data, time.monotonic() + 5.0)
            root = run.server.processes()[0]
            started = time.monotonic()
            root.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                root.wait(60.0)
            return time.monotonic() - started
        finally:
            for one in opened:
                one.close()

    return {"stop_with_never_readers_s": await asyncio.to_thread(stop)}


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = []
    held = figures["never_readers"] - figures["never_readers_released"]
    if held > 0:
        broken.append(f"{held:.0f} connections that are never read were held to the end")
    if figures["largest_answer_bytes"] > LARGEST_ANSWER_BYTES:
        broken.append(f"an answer had {figures['largest_answer_bytes']:,.0f} bytes")
    if figures["stop_with_never_readers_s"] > STOP_SECONDS:
        broken.append(f"SIGTERM took {figures['stop_with_never_readers_s']:.1f} s")
    return broken


TRIAL: Final = attack_trial(
    "slow_readers",
    "Clients that never read",
    Attack(wage, judge=judge, after=stop_with_never_readers, seconds=HOLD_SECONDS),
    more_promised=(
        f"a connection that is never read is ended within {HOLD_SECONDS:g} s, no answer is larger "
        f"than {LARGEST_ANSWER_BYTES / 1e6:g} MB, and SIGTERM ends the server within "
        f"{STOP_SECONDS:g} s"
    ),
)
