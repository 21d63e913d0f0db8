"""Trial ``scan_bombs``: small pictures that take seconds to decode."""

import asyncio
from collections import Counter
from typing import Final

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.pictures import multi_scan_baseline, progressive_bomb, tiny_webp
from bench.chaos.raw import (
    FORM_TYPE,
    Answer,
    AttackResult,
    Target,
    form_bytes,
    request_bytes,
    send_paced,
)

_WEBPS_PER_SECOND: Final = 10.0
_JPEGS_PER_SECOND: Final = 1.0
_FORMS_PER_SECOND: Final = 0.5
_ABANDON_SECONDS: Final = 0.2


def prepare() -> None:
    """Make the pictures."""
    progressive_bomb()
    multi_scan_baseline()
    tiny_webp()


def wage(target: Target) -> AttackResult:
    """Send pictures that are expensive to decode, as bodies and in forms.

    They are progressive JPEGs of 9,000 scans, multi-scan baseline JPEGs of 64 megapixels and tiny
    WebPs of 24. Half of the clients disconnect at once.
    """
    return asyncio.run(_wage(target))


async def _wage(target: Target) -> AttackResult:
    jpegs = [_post(progressive_bomb()), _post(multi_scan_baseline())]
    webps = [_post(tiny_webp())]
    form = form_bytes([tiny_webp()] * 16)
    forms = [[request_bytes("POST", "/classify/batch", form, (("Content-Type", FORM_TYPE),))]]
    decoded = 0

    def count_decoded(number: int, answers: list[Answer]) -> None:
        nonlocal decoded
        decoded += any(answer.status == 200 for answer in answers)

    results = await asyncio.gather(
        send_paced(target, jpegs, _JPEGS_PER_SECOND, look=count_decoded),
        send_paced(target, jpegs, _JPEGS_PER_SECOND, wait_seconds=_ABANDON_SECONDS),
        send_paced(target, webps, _WEBPS_PER_SECOND, look=count_decoded),
        send_paced(target, forms, _FORMS_PER_SECOND),
    )
    statuses: Counter[int] = Counter()
    for one in results:
        statuses.update(one)
    return AttackResult(statuses, {"bombs_decoded": float(decoded)})


def _post(picture: bytes) -> list[bytes]:
    return [request_bytes("POST", "/classify", picture)]


TRIAL: Final = attack_trial(
    "scan_bombs",
    "Pictures that cost far more than their bytes",
    Attack(wage, prepare, photos=True),
)
