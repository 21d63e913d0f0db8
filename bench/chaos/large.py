"""Trial ``large``: 12-megapixel photos alongside 32×32 tiles, and the cost of decoding a photo.

The trial makes the photos itself: enlarged tiles of the server's golden images, with sensor-like
noise, as JPEG. They have the structure that determines a JPEG's cost and come from no data set.
"""

import asyncio
import io
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.chaos.trial import Trial, TrialRun, Verdict
from bench.load.client import HttpClient
from bench.load.loops import open_loop
from cifar10.golden import golden_images
from cifar10.images import decode_image
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore

WIDTH: Final = 4_000
HEIGHT: Final = 3_000
SPEED_UP: Final = 3.5
"""Promised speed-up of decoding at reduced scale over decoding at full scale."""

_QUALITY: Final = 90
_NOISE: Final = 6.0
_SMALL_PER_SECOND: Final = 100.0
_POSTERS: Final = 2


async def large(run: TrialRun) -> Verdict:
    """Measure small requests alone and alongside large ones, alternating; then decoding alone."""
    plan = run.plan
    photos = photos_of(golden_images()[: plan.large_images], plan.seed)
    alone: list[NDArray[np.float64]] = []
    beside: list[NDArray[np.float64]] = []
    answered = 0
    small = run.client()
    await small.open_connections(8)
    big = HttpClient(run.server.url, "/classify", photos, "image/jpeg")

    async def send(number: int) -> int:
        status = await small.send(number)
        run.statuses[status] += 1
        return status

    for number in range(plan.large_rounds):
        run.progress("chaos: large", number, plan.large_rounds)
        seed = plan.seed + number
        sent = await open_loop(send, _SMALL_PER_SECOND, plan.large_seconds, seed=seed)
        alone.append(sent.times_ms)
        going = True

        async def poster(first: int) -> int:
            count = 0
            while going:  # noqa: B023 - it ends within its own round
                status = await big.send(first + count)
                run.statuses[status] += 1
                count += 1
            return count

        async with asyncio.TaskGroup() as tasks:
            posters = [tasks.create_task(poster(first)) for first in range(_POSTERS)]
            sent = await open_loop(send, _SMALL_PER_SECOND, plan.large_seconds, seed=seed)
            going = False
        beside.append(sent.times_ms)
        answered += sum(one.result() for one in posters)
    small.close()
    big.close()
    whole_ms, reduced_ms, same = await asyncio.to_thread(_compare_decoding, photos, run)
    ratio = whole_ms / reduced_ms
    figures = {
        "failed_requests": float(run.not_ok),
        "large_answered": float(answered),
        "small_p50_alone_ms": float(np.percentile(np.concatenate(alone), 50)),
        "small_p99_alone_ms": float(np.percentile(np.concatenate(alone), 99)),
        "small_p50_beside_ms": float(np.percentile(np.concatenate(beside), 50)),
        "small_p99_beside_ms": float(np.percentile(np.concatenate(beside), 99)),
        "photos": float(len(photos)),
        "decode_whole_ms": whole_ms,
        "decode_reduced_ms": reduced_ms,
        "times_faster": ratio,
        "same_class": float(same),
    }
    return Verdict(figures, judge(figures))


def judge(figures: dict[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = []
    if figures["failed_requests"]:
        broken.append(f"{figures['failed_requests']:.0f} requests failed")
    if figures["times_faster"] < SPEED_UP:
        broken.append(f"decoding at reduced scale is {figures['times_faster']:.1f} times faster")
    if figures["same_class"] != figures["photos"]:
        broken.append(
            f"{figures['same_class']:.0f} of {figures['photos']:.0f} photos keep their class"
        )
    return broken


def photos_of(tiles: NDArray[np.uint8], seed: int) -> list[bytes]:
    """Enlarge each tile, uint8 (32, 32, 3), to a 12-megapixel JPEG with sensor-like noise."""
    chance = np.random.default_rng(seed)
    photos = []
    for tile in tiles:
        picture = Image.fromarray(tile).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture, np.float32)
        noise = chance.standard_normal(pixels.shape, np.float32) * np.float32(_NOISE)
        stream = io.BytesIO()
        noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(stream, "JPEG", quality=_QUALITY)
        photos.append(stream.getvalue())
    return photos


def decode_whole(photo: bytes) -> NDArray[np.uint8]:
    """Decode at full scale and resize with the same filter: uint8 (32, 32, 3), RGB."""
    with Image.open(io.BytesIO(photo)) as image:
        tile = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    return np.asarray(tile)


def _compare_decoding(photos: Sequence[bytes], run: TrialRun) -> tuple[float, float, int]:
    """Return (median ms at full scale, median ms reduced, photos with equal class), interleaved."""
    stored = ModelStore(run.store).load(run.model)
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    whole, reduced, same = [], [], 0
    for photo in photos:
        start = time.perf_counter()
        slow = decode_whole(photo)
        middle = time.perf_counter()
        fast = decode_image(photo)
        reduced.append(time.perf_counter() - middle)
        whole.append(middle - start)
        classes = predictor.predict(np.stack([slow, fast])).argmax(axis=1)
        same += int(classes[0] == classes[1])
    return float(np.median(whole)) * 1e3, float(np.median(reduced)) * 1e3, same


TRIAL: Final = Trial(
    "large",
    "12-megapixel photos beside 32×32 tiles",
    f"a 12-megapixel JPEG is decoded ≥ {SPEED_UP:g} times faster than whole, to the same class; "
    "no request fails",
    large,
)
