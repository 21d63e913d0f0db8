"""Trial ``second_server``: another server is started in the same BentoML home.

It starts once on the port of the first, where it must fail, and once on its own port. Neither start
may remove the first server's metrics or workers.
"""

import asyncio
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from bench.chaos.bystanders import Bystanders, judge_times
from bench.chaos.trial import Trial, TrialRun, Verdict
from bench.serving.process import SERVE, Server
from cifar10.errors import BenchError

_START_SECONDS: Final = 60.0
_NICE: Final = ("nice", "-n", "10")
"""Command prefix for a lower priority.

The second server's start uses a core for seconds, which is not under test here.
"""
_COUNTED: Final = re.compile(r"^cifar10_requests_total\{.*\} (\S+)$", re.MULTILINE)
_BEFORE_SECONDS: Final = 1.0
_WINDOW_SECONDS: Final = 16.0


async def second_server(run: TrialRun) -> Verdict:
    """Start a second server twice while the first one serves."""
    plan = run.plan
    with tempfile.TemporaryDirectory(prefix="bench-home-") as folder:
        home = str(Path(folder) / "bentoml")
        with run.serve({"BENTOML_HOME": home}) as first:
            bystanders = Bystanders(run)
            await bystanders.warm_up()
            await bystanders.alone(plan.attack_seconds, plan.seed)
            workers = run.worker_ids()
            counted = await requests_counted(first.url)
            serving = asyncio.ensure_future(
                bystanders.attacked(max(plan.attack_seconds, _WINDOW_SECONDS), plan.seed + 100)
            )
            await asyncio.sleep(_BEFORE_SECONDS)
            same_port = [part.replace("{port}", str(first.port)) for part in SERVE]
            failed = not await asyncio.to_thread(_starts, run, same_port, home)
            after_failed = await requests_counted(first.url)
            started = await asyncio.to_thread(_starts, run, SERVE, home)
            after_started = await requests_counted(first.url)
            await serving
            at_end = await requests_counted(first.url)
            lost = len(workers - run.worker_ids())
            figures = bystanders.close()
    figures |= {
        "counted_before": counted,
        "counted_after_one_that_failed": after_failed,
        "counted_after_one_that_started": after_started,
        "counted_at_the_end": at_end,
        "second_on_the_same_port_failed": float(failed),
        "second_on_its_own_port_started": float(started),
        "workers_lost": float(lost),
    }
    return Verdict(figures, judge(figures))


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = judge_times(figures)
    if figures["workers_lost"]:
        broken.append(f"{figures['workers_lost']:.0f} workers were lost")
    if not figures["second_on_the_same_port_failed"]:
        broken.append("a second server started on the port of the first")
    if not figures["second_on_its_own_port_started"]:
        broken.append("a second server did not start on a port of its own")
    before = figures["counted_before"]
    for name, what in (
        ("counted_after_one_that_failed", "one that failed on the port"),
        ("counted_after_one_that_started", "one on a port of its own"),
        ("counted_at_the_end", "the end"),
    ):
        if figures[name] < before:
            broken.append(
                f"the first server counted {before:.0f} requests before the second and "
                f"{figures[name]:.0f} after {what}"
            )
    return broken


async def requests_counted(url: str) -> float:
    """Return the number of requests counted in the server's ``/metrics``; 0 without metrics."""
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            text = (await client.get(f"{url}/metrics")).text
    except httpx.HTTPError:
        return 0.0
    return sum(float(value) for value in _COUNTED.findall(text))


def _starts(run: TrialRun, command: Sequence[str], home: str) -> bool:
    """Start a server with these settings, stop it, and return whether it became ready."""
    second = Server(
        run.store,
        load=[run.model],
        device=run.device,
        command=(*_NICE, *command),
        settings={"BENTOML_HOME": home},
        start_timeout_seconds=_START_SECONDS,
    )
    try:
        with second:
            return True
    except BenchError:
        return False


TRIAL: Final = Trial(
    "second_server",
    "A second server in the same BentoML home",
    "the first server's metrics and workers stay, its clients notice nothing; the second fails on "
    "a port in use and starts on another",
    second_server,
    starts_server=True,
)
