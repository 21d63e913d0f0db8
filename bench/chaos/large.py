"""The trial ``large``: 12-megapixel photos beside 32×32 tiles, and what decoding one costs.

The photos are made when it runs: tiles of the server's golden images, enlarged, with noise as of a
sensor, as JPEG. They have the structure that decides a JPEG's cost, and come from no data set.
"""

import asyncio
import io
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.chaos.trial import Trial
from bench.load.client import HttpClient
from bench.load.loops import open_loop
from bench.rows.kinds.chaos import ChaosMeasurement
from cifar10.golden import golden_images
from cifar10.images import decode_image
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore

WIDTH: Final = 4_000
HEIGHT: Final = 3_000
SPEED_UP: Final = 3.5
"""The promise: decoding at reduced scale is this much faster than decoding it whole."""

_QUALITY: Final = 90
_NOISE: Final = 6.0
_SMALL_PER_SECOND: Final = 100.0
_POSTERS: Final = 2


async def large(trial: Trial) -> ChaosMeasurement:
    """Small requests alone and beside a stream of large ones, in turn; then decoding by itself."""
    plan = trial.plan
    photos = photos_of(golden_images()[: plan.large_images], plan.seed)
    alone: list[NDArray[np.float64]] = []
    beside: list[NDArray[np.float64]] = []
    answered = 0
    small = trial.client()
    await small.open_connections(8)
    big = HttpClient(trial.server.url, "/classify", photos, "image/jpeg")

    async def send(number: int) -> int:
        status = await small.send(number)
        trial.statuses[status] += 1
        return status

    for number in range(plan.large_rounds):
        trial.progress("chaos: large", number, plan.large_rounds)
        seed = plan.seed + number
        sent = await open_loop(send, _SMALL_PER_SECOND, plan.large_seconds, seed=seed)
        alone.append(sent.times_ms)
        going = True

        async def poster(first: int) -> int:
            count = 0
            while going:  # noqa: B023 - it ends with its own round
                status = await big.send(first + count)
                trial.statuses[status] += 1
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
    whole_ms, reduced_ms, same = await asyncio.to_thread(_compare_decoding, photos, trial)
    ratio = whole_ms / reduced_ms
    failed = sum(count for status, count in trial.statuses.items() if status != 200)
    figures = {
        "failed_requests": float(failed),
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
    promise = (
        f"a 12-megapixel JPEG is decoded ≥ {SPEED_UP:g} times faster than whole, to the same "
        "class; no request fails"
    )
    return trial.result(figures, promise, failed == 0 and ratio >= SPEED_UP and same == len(photos))


def photos_of(tiles: NDArray[np.uint8], seed: int) -> list[bytes]:
    """Each tile, uint8 (32, 32, 3), as a 12-megapixel JPEG with the noise of a sensor."""
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
    """What a server does that does not reduce: every pixel, then the same filter."""
    with Image.open(io.BytesIO(photo)) as image:
        tile = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    return np.asarray(tile)


def _compare_decoding(photos: Sequence[bytes], trial: Trial) -> tuple[float, float, int]:
    """(median ms whole, median ms reduced, photos of the same class); in turn, photo by photo."""
    stored = ModelStore(trial.store).load(trial.model)
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
