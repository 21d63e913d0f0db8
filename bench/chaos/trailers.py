"""Trial ``trailers``: fields after a chunked body, which must be ignored and bounded."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.raw import AttackResult, Target, exchange, request_bytes
from bench.load.bodies import encode_png
from bench.load.client import NO_ANSWER

TOKEN: Final = "chaos-client"  # noqa: S105 - token of the server under trial
TRAILER_BYTES: Final = 18_000_000
_PER_SECOND: Final = 1.0
_HEADERS: Final = {"Authorization": f"Bearer {TOKEN}"}


def forged_requests() -> list[bytes]:
    """Return requests with the token only in the trailer, with and without announcing it."""
    picture = encode_png(np.zeros((32, 32, 3), np.uint8))
    credential = f"Authorization: Bearer {TOKEN}\r\n".encode()
    made = []
    for announced in ((), (("Trailer", "Authorization"),), (("TE", "trailers"),)):
        for body in (picture, b""):
            head = request_bytes("POST", "/classify", headers=announced, chunked=True)
            chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            end = b"0\r\n" + credential + b"X-Forwarded-For: 10.1.2.3\r\n\r\n"
            made.append(head + chunk + end)
    return made


def wage(target: Target) -> AttackResult:
    """Send forged trailers and endless ones in turn."""
    return asyncio.run(_wage(target))


async def _wage(target: Target) -> AttackResult:
    loop = asyncio.get_running_loop()
    start = loop.time()
    statuses: Counter[int] = Counter()
    forged = accepted = 0
    picture = encode_png(np.zeros((32, 32, 3), np.uint8))
    head = request_bytes("POST", "/classify", picture, tuple(_HEADERS.items()), chunked=True)
    fields = b"".join(b"x-%05d: %s\r\n" % (number, b"v" * 100) for number in range(1_000))
    flood = [head, b"0\r\n", *[fields] * (TRAILER_BYTES // len(fields)), b"\r\n"]
    one_long = [head, b"0\r\nx-long: ", *[b"v" * 65_536] * (TRAILER_BYTES // 65_536), b"\r\n\r\n"]
    while loop.time() - start < target.seconds:
        for request in forged_requests():
            found = await exchange(target, [request], seconds=5.0)
            forged += 1
            accepted += any(answer.status == 200 for answer in found)
            statuses[found[0].status if found else NO_ANSWER] += 1
        for endless in (flood, one_long):
            found = await exchange(target, endless, seconds=8.0, answers=2)
            statuses[found[0].status if found else NO_ANSWER] += 1
        await asyncio.sleep(1 / _PER_SECOND)
    return AttackResult(
        statuses, {"forged_trailers": float(forged), "forged_trailers_accepted": float(accepted)}
    )


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    accepted = figures["forged_trailers_accepted"]
    return [f"{accepted:.0f} tokens in trailers were accepted"] if accepted else []


TRIAL: Final = attack_trial(
    "trailers",
    "Trailers: forged and endless",
    Attack(wage, judge=judge, headers=_HEADERS),
    more_promised="no field of a trailer counts as a header",
    settings={"CIFAR10_TOKEN": TOKEN},
)
