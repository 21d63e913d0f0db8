"""Trial ``mpo``: multi-picture files as phones write them, of normal and extreme size."""

import asyncio
import functools
import io
from collections import Counter
from collections.abc import Mapping
from typing import Final

from PIL import Image

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.large import photos_of
from bench.chaos.pictures import multi_picture
from bench.chaos.raw import Answer, AttackResult, Target, request_bytes, send_paced
from bench.chaos.trial import DESIGNED_FAILURES
from cifar10.golden import golden_images

_HUGE_PER_SECOND: Final = 2.0
_ORDINARY_PER_SECOND: Final = 0.5


@functools.cache
def phone_picture() -> bytes:
    """Return a 12-megapixel MPO file: a photo and its preview."""
    (photo,) = photos_of(golden_images()[:1], seed=0)
    stream = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as picture:
        preview = picture.resize((400, 300))
        picture.save(stream, "MPO", save_all=True, append_images=[preview], quality=90)
    return stream.getvalue()


def prepare() -> None:
    """Make the pictures."""
    multi_picture()
    phone_picture()


def wage(target: Target) -> AttackResult:
    """Send MPO files of 64 megapixels, and a few phone-like ones that must be classified."""
    return asyncio.run(_wage(target))


async def _wage(target: Target) -> AttackResult:
    sent = refused = 0

    def count(number: int, answers: list[Answer]) -> None:
        nonlocal sent, refused
        sent += 1
        status = answers[0].status if answers else 0
        refused += status != 200 and status not in DESIGNED_FAILURES

    huge, ordinary = (
        [[request_bytes("POST", "/classify", picture)]]
        for picture in (multi_picture(), phone_picture())
    )
    first, second = await asyncio.gather(
        send_paced(target, huge, _HUGE_PER_SECOND),
        send_paced(target, ordinary, _ORDINARY_PER_SECOND, look=count),
    )
    figures = {"phone_pictures": float(sent), "phone_pictures_refused": float(refused)}
    return AttackResult(Counter(first) + Counter(second), figures)


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    refused = figures["phone_pictures_refused"]
    if not refused:
        return []
    return [f"{refused:.0f} of {figures['phone_pictures']:.0f} MPO files of a phone were refused"]


TRIAL: Final = attack_trial(
    "mpo",
    "Multi-picture files of 64 megapixels",
    Attack(wage, prepare, judge=judge, photos=True),
    more_promised="a 12-megapixel MPO file of a phone is answered",
)
