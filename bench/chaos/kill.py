"""Trial ``kill``: workers are killed under load."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Mapping
from typing import Final

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]

from bench.chaos.bystanders import Bystanders, judge_times
from bench.chaos.traffic import traffic
from bench.chaos.trial import Trial, TrialRun, Verdict
from cifar10.errors import BenchError

RECOVERY_SECONDS: Final = 2.0
"""Promised time in which a killed worker is replaced."""
REPLACED_SECONDS: Final = 30.0
"""Promised time in which a worker is replaced when the disk or the log is broken."""
_KILL_AFTER_SECONDS: Final = 1.0
_REPLACING_SECONDS: Final = 6.0
_BETWEEN_SECONDS: Final = 4.0
_LOOK_SECONDS: Final = 0.01
_GIVE_UP_SECONDS: Final = 180.0


async def kill(run: TrialRun) -> Verdict:
    """Kill a worker under load, several times."""
    recoveries: list[float] = []
    allowed = 0
    shares = []
    async with traffic(run):
        for number in range(run.plan.kills):
            run.progress("chaos: kill", number, run.plan.kills)
            await asyncio.sleep(_BETWEEN_SECONDS)
            counts = {one.pid: connections_of(one, run.server.port) for one in run.server.workers()}
            shares.append(min(counts.values()) / max(1, sum(counts.values())))
            victim = min(counts)
            # A connection carries one request at a time, so the connections bound the loss.
            allowed += counts[victim]
            psutil.Process(victim).send_signal(signal.SIGKILL)
            recoveries.append(await seconds_until_replaced(run.server.url, victim))
    figures = {
        "kills": float(len(recoveries)),
        "failed_requests": float(run.not_ok),
        "connections_of_the_killed": float(allowed),
        "longest_recovery_s": max(recoveries),
        "median_recovery_s": float(np.median(recoveries)),
        "least_share_of_connections": min(shares),
    }
    return Verdict(figures, judge(figures))


def judge(figures: dict[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = []
    if figures["failed_requests"] > figures["connections_of_the_killed"]:
        broken.append(
            f"{figures['failed_requests']:.0f} requests failed; the killed workers had "
            f"{figures['connections_of_the_killed']:.0f} connections"
        )
    if figures["longest_recovery_s"] >= RECOVERY_SECONDS:
        broken.append(f"a killed worker was replaced after {figures['longest_recovery_s']:.1f} s")
    return broken


def connections_of(process: psutil.Process, port: int) -> int:
    """Return the number of clients connected to one worker."""
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
        for one in process.net_connections("tcp")
    )


def kill_one(run: TrialRun) -> tuple[int, int]:
    """Kill a worker; return its process id and its number of connections, or zeros without a
    worker."""
    with contextlib.suppress(psutil.Error):
        for worker in run.server.workers():
            lost = connections_of(worker, run.server.port)
            worker.send_signal(signal.SIGKILL)
            return worker.pid, lost
    return 0, 0


async def kill_beside(bystanders: Bystanders, run: TrialRun) -> dict[str, float]:
    """Kill a worker while ordinary clients are served; return whether and when it was replaced."""
    serving = asyncio.ensure_future(bystanders.untimed(_REPLACING_SECONDS, run.plan.seed))
    await asyncio.sleep(_KILL_AFTER_SECONDS)
    victim, lost = kill_one(run)
    replaced_s = -1.0
    with contextlib.suppress(BenchError, TimeoutError):
        replacing = seconds_until_replaced(run.server.url, victim)
        replaced_s = await asyncio.wait_for(replacing, REPLACED_SECONDS)
    await serving
    return {
        "killed_worker_replaced_after_s": replaced_s,
        "lost_with_the_killed_worker": float(lost),
    }


def judge_beside(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise of a trial that uses :func:`kill_beside`.

    Requests lost with the worker that the trial itself kills do not count.
    """
    lost = min(figures["lost_with_the_killed_worker"], figures["other_requests_failed"])
    failed = figures["other_requests_failed"] - lost
    broken = judge_times({**figures, "other_requests_failed": failed})
    if figures["killed_worker_replaced_after_s"] < 0:
        broken.append(f"a killed worker was not replaced within {REPLACED_SECONDS:g} s")
    return broken


async def seconds_until_replaced(url: str, victim: int) -> float:
    """Return the seconds until the killed worker is gone and ``/readyz`` reports all workers ready.

    Each poll uses a new connection, which any worker may accept.

    Raises:
        BenchError: it was not replaced within three minutes.
    """
    start = time.monotonic()
    async with httpx.AsyncClient(timeout=5, headers={"connection": "close"}) as client:
        while True:
            if not psutil.pid_exists(victim):
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"{url}/readyz")
                    if answer.status_code == httpx.codes.OK:
                        return time.monotonic() - start
            if time.monotonic() - start > _GIVE_UP_SECONDS:
                message = f"the killed worker was not replaced within {_GIVE_UP_SECONDS:g} s"
                raise BenchError(message)
            await asyncio.sleep(_LOOK_SECONDS)


TRIAL: Final = Trial(
    "kill",
    "Workers killed under load (`kill -9`)",
    f"all workers ready again within {RECOVERY_SECONDS:g} s; no request lost but those on the "
    "killed worker's connections",
    kill,
)
