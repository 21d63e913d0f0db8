"""Trial ``reload``: model files are replaced under load."""

import asyncio
import time
from typing import Final

import httpx
import numpy as np

from bench.chaos.traffic import traffic
from bench.chaos.trial import ADMINISTRATOR, Trial, TrialRun, Verdict
from bench.load.bodies import encode_png
from bench.serving.new_file import put_new_file
from cifar10.store import ONNX_FILE

_ASKED: Final = 4
"""Number of polling connections for each worker."""


async def reload(run: TrialRun) -> Verdict:
    """Reload a model under load, alternating between a new good file and a truncated one."""
    file = run.store / run.model / ONNX_FILE
    whole = file.read_bytes()
    times, wrong = [], 0
    headers = {"authorization": f"Bearer {ADMINISTRATOR}"}
    address = f"{run.server.url}/models/{run.model}/reload"
    async with traffic(run), httpx.AsyncClient(timeout=120) as client:
        for number in range(run.plan.reloads):
            run.progress("chaos: reload", number, run.plan.reloads)
            digest = put_new_file(file.parent, whole, number)
            start = time.monotonic()
            answer = await client.post(address, headers=headers)
            times.append(time.monotonic() - start)
            taken = answer.json().get("workers") == run.plan.workers
            wrong += not taken or await _digests(run) != {digest}
            await asyncio.sleep(1)
            file.write_bytes(whole[: len(whole) // 2])
            refused = (await client.post(address, headers=headers)).status_code == 409
            wrong += not refused or await _digests(run) != {digest}
            await asyncio.sleep(1)
    failed = sum(count for status, count in run.statuses.items() if status != 200)
    figures = {
        "good_files": float(len(times)),
        "bad_files": float(len(times)),
        "wrong": float(wrong),
        "failed_requests": float(failed),
        "longest_reload_s": max(times),
        "median_reload_s": float(np.median(times)),
    }
    return Verdict(figures, judge(figures))


def judge(figures: dict[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = []
    if figures["failed_requests"]:
        broken.append(f"{figures['failed_requests']:.0f} requests failed")
    if figures["wrong"]:
        broken.append(f"{figures['wrong']:.0f} reloads left a worker with the wrong file")
    return broken


async def _digests(run: TrialRun) -> set[str]:
    """Return the digests of the serving models, polled on several connections for each worker."""
    picture = encode_png(np.zeros((32, 32, 3), np.uint8))
    found = set()
    for _ in range(_ASKED * run.plan.workers):
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{run.server.url}/classify", content=picture)
            found.add(str(answer.json().get("digest")))
    return found


TRIAL: Final = Trial(
    "reload",
    "Models reloaded under load",
    "every worker takes each good file, which is another one each time, and none a bad one, as "
    "their answers' digests show; no request fails",
    reload,
)
