"""The trial in which models are replaced while they answer."""

import asyncio
import hashlib
import time
from dataclasses import replace
from typing import Final

import httpx
import numpy as np

from bench.chaos.trial import Trial, traffic
from bench.load.locust import encode_png
from bench.rows.kinds.chaos import ChaosMeasurement
from cifar10.card import read_card
from cifar10.records import to_json
from cifar10.store import CARD_FILE, ONNX_FILE

ADMINISTRATOR: Final = "chaos"
"""The token of the server under trial."""

_ASKED: Final = 4
"""Connections that ask, for each worker."""


async def reload(trial: Trial) -> ChaosMeasurement:
    """Reload a model under load, each time with another good file and then with half of one."""
    file = trial.store / trial.model / ONNX_FILE
    card = read_card((file.parent / CARD_FILE).read_bytes())
    whole = file.read_bytes()
    times, wrong = [], 0
    headers = {"authorization": f"Bearer {ADMINISTRATOR}"}
    address = f"{trial.server.url}/models/{trial.model}/reload"
    async with traffic(trial), httpx.AsyncClient(timeout=120) as client:
        for number in range(trial.plan.reloads):
            trial.progress("chaos: reload", number, trial.plan.reloads)
            good = _renamed(whole, number)
            digest = hashlib.sha256(good).hexdigest()
            file.write_bytes(good)
            (file.parent / CARD_FILE).write_text(to_json(replace(card, sha256=digest)))
            start = time.monotonic()
            answer = await client.post(address, headers=headers)
            times.append(time.monotonic() - start)
            taken = answer.json().get("workers") == trial.plan.workers
            wrong += not taken or await _digests(trial) != {digest}
            await asyncio.sleep(1)
            file.write_bytes(good[: len(good) // 2])
            refused = (await client.post(address, headers=headers)).status_code == 409
            wrong += not refused or await _digests(trial) != {digest}
            await asyncio.sleep(1)
    failed = sum(count for status, count in trial.statuses.items() if status != 200)
    figures = {
        "good_files": float(len(times)),
        "bad_files": float(len(times)),
        "wrong": float(wrong),
        "failed_requests": float(failed),
        "longest_reload_s": max(times),
        "median_reload_s": float(np.median(times)),
    }
    return trial.result(
        figures,
        "every worker takes each good file, which is another one each time, and none a bad one, "
        "as their answers' digests show; no request fails",
        failed == 0 and wrong == 0,
    )


def _renamed(onnx: bytes, number: int) -> bytes:
    """The same model as other bytes: with a doc_string (field 6 of a ModelProto) at its end."""
    text = str(number).encode()
    return onnx + b"\x32" + bytes([len(text)]) + text


async def _digests(trial: Trial) -> set[str]:
    """Of the models that answer now, asked on several new connections for each worker."""
    picture = encode_png(np.zeros((32, 32, 3), np.uint8))
    found = set()
    for _ in range(_ASKED * trial.plan.workers):
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{trial.server.url}/classify", content=picture)
            found.add(str(answer.json().get("digest")))
    return found
