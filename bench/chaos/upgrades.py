"""The trial ``upgrades``: requests that ask for another protocol and carry a body.

``curl --http2``, Java's HTTP client and nginx's usual configuration for WebSockets send them. The
service stays with HTTP/1.1, reads the body and gives one answer. A body that looks like a request
must not be answered as one.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.raw import FORM_TYPE, AttackResult, Target, exchange, form_bytes, request_bytes
from bench.load.bodies import encode_png
from bench.load.client import NO_ANSWER

_H2C: Final = (
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
)
_WEBSOCKET: Final = (
    ("Connection", "upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
_REQUEST: Final = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
_SECOND_ANSWER_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Case:
    """One request, in the pieces in which it is sent, and the statuses that may answer it."""

    name: str
    pieces: tuple[bytes, ...]
    expected: tuple[int, ...]


def cases() -> list[Case]:
    """Every way of asking for an upgrade."""
    picture = encode_png(np.zeros((32, 32, 3), np.uint8))
    form = form_bytes([picture])
    made = []
    for name, asking in (("h2c", _H2C), ("websocket", _WEBSOCKET)):
        typed = (*asking, ("Content-Type", FORM_TYPE))
        whole = request_bytes("POST", "/classify", picture, asking)
        head_end = whole.index(b"\r\n\r\n") + 4
        chunked = request_bytes("POST", "/classify", picture, asking, chunked=True) + b"0\r\n\r\n"
        smuggled = request_bytes("POST", "/classify", _REQUEST, asking)
        made += [
            Case(f"{name} with a form", (request_bytes("POST", "/classify", form, typed),), (200,)),
            Case(f"{name} with an image", (whole,), (200,)),
            Case(f"{name}, head first", (whole[:head_end], whole[head_end:]), (200,)),
            Case(f"{name}, cut in the head", (whole[:40], whole[40:]), (200,)),
            Case(f"{name}, chunked", (chunked,), (200,)),
            Case(f"{name}, a request as body", (smuggled,), (415,)),
            Case(f"{name} without a body", (request_bytes("GET", "/livez", None, asking),), (200,)),
        ]
    connect = request_bytes("CONNECT", "127.0.0.1:80", picture)
    return [*made, Case("CONNECT with a body", (connect,), (400, 404, 405, 501))]


def wage(target: Target) -> AttackResult:
    """Send every case again and again."""
    return asyncio.run(_wage(target, cases()))


async def _wage(target: Target, every: Sequence[Case]) -> AttackResult:
    loop = asyncio.get_running_loop()
    start = loop.time()
    statuses: Counter[int] = Counter()
    asked = wrong = extra = 0
    while loop.time() - start < target.seconds:
        for case in every:
            # A second answer, were there one, comes within a moment of the first.
            found = await exchange(target, case.pieces, seconds=_SECOND_ANSWER_SECONDS, answers=2)
            if not found:
                found = await exchange(target, case.pieces, seconds=10.0)
            asked += 1
            statuses[found[0].status if found else NO_ANSWER] += 1
            wrong += not found or found[0].status not in case.expected
            extra += len(found) > 1
            await asyncio.sleep(_PAUSE_SECONDS)
            if loop.time() - start >= target.seconds:
                break
    return AttackResult(
        statuses,
        {
            "upgrades_asked": float(asked),
            "upgrades_answered_wrongly": float(wrong),
            "bodies_answered_as_requests": float(extra),
        },
    )


def judge(figures: Mapping[str, float]) -> list[str]:
    """Parts of the promise that did not hold."""
    broken = []
    if figures["upgrades_answered_wrongly"]:
        broken.append(
            f"{figures['upgrades_answered_wrongly']:.0f} of {figures['upgrades_asked']:.0f} "
            "requests for an upgrade got a wrong answer or none"
        )
    if figures["bodies_answered_as_requests"]:
        broken.append(
            f"{figures['bodies_answered_as_requests']:.0f} bodies were answered as requests"
        )
    return broken


TRIAL: Final = attack_trial(
    "upgrades",
    "Requests for an upgrade, with a body",
    Attack(wage, judge=judge),
    more_promised="each gets the answer that it would get without the upgrade, and only that",
)
