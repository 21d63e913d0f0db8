"""The trial ``logs``: nobody takes what the server logs.

Once its log is a pipe whose reader has gone, and once a pipe that is full and that nobody reads.
Each time requests go on, a worker is killed, and then the server is told to end.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from typing import Final

import psutil  # type: ignore[import-untyped]

from bench.chaos.bystanders import Bystanders, judge_times
from bench.chaos.kill import kill_one, seconds_until_replaced
from bench.chaos.trial import Trial, TrialRun, Verdict
from cifar10.errors import BenchError

STOP_SECONDS: Final = 20.0
REPLACED_SECONDS: Final = 30.0
_KILL_AFTER_SECONDS: Final = 1.0
_REPLACING_SECONDS: Final = 6.0
_PIPE_BYTES: Final = 4_096
_LOGGED: Final = {"CIFAR10_ACCESS_LOG": "1", "PYTHONUNBUFFERED": ""}
"""Every request is logged, and Python buffers what it prints, as it does in production."""

DEAD: Final = "dead"
BLOCKED: Final = "blocked"


async def logs(run: TrialRun) -> Verdict:
    """Serve with a dead log, then with a blocked one."""
    figures: dict[str, float] = {}
    broken: list[str] = []
    for kind in (DEAD, BLOCKED):
        found = await _serve_with(run, kind)
        broken += [f"{kind} log: {part}" for part in judge(found)]
        figures |= {f"{kind}_log_{name}": value for name, value in found.items()}
    return Verdict(figures, broken)


async def _serve_with(run: TrialRun, kind: str) -> dict[str, float]:
    plan = run.plan
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with contextlib.ExitStack() as stack:
        closing = stack.enter_context(_descriptors(reader, writer))
        drain = asyncio.get_running_loop().create_task(_read(reader))
        # Until the fault begins, somebody reads the log, as a container's runtime does.
        server = await asyncio.to_thread(stack.enter_context, run.serve(_LOGGED, output=writer))
        os.close(closing.pop(writer))
        bystanders = Bystanders(run)
        await bystanders.warm_up()
        await bystanders.alone(plan.attack_seconds, plan.seed)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
        if kind == DEAD:
            os.close(closing.pop(reader))
        await bystanders.attacked(plan.attack_seconds, plan.seed + 100)
        serving = asyncio.ensure_future(bystanders.untimed(_REPLACING_SECONDS, plan.seed))
        await asyncio.sleep(_KILL_AFTER_SECONDS)
        victim, lost = kill_one(run)
        replaced_s = -1.0
        with contextlib.suppress(BenchError, TimeoutError):
            replacing = seconds_until_replaced(server.url, victim)
            replaced_s = await asyncio.wait_for(replacing, REPLACED_SECONDS)
        await serving
        figures = bystanders.close()
        stop_s = await asyncio.to_thread(_stop, run)
    return {
        **figures,
        "killed_worker_replaced_after_s": replaced_s,
        "stop_s": stop_s,
        "lost_with_the_killed_worker": min(float(lost), figures["other_requests_failed"]),
    }


def judge(figures: Mapping[str, float]) -> list[str]:
    """Parts of the promise that did not hold with one kind of log."""
    excused = figures["lost_with_the_killed_worker"]
    broken = judge_times(
        {**figures, "other_requests_failed": figures["other_requests_failed"] - excused}
    )
    if figures["killed_worker_replaced_after_s"] < 0:
        broken.append(f"a killed worker was not replaced within {REPLACED_SECONDS:g} s")
    if figures["stop_s"] > STOP_SECONDS:
        broken.append(f"SIGTERM did not end the server within {STOP_SECONDS:g} s")
    return broken


@contextlib.contextmanager
def _descriptors(*numbers: int) -> Iterator[dict[int, int]]:
    """Descriptors to close at the end, each under its own number."""
    still_open = {number: number for number in numbers}
    try:
        yield still_open
    finally:
        for number in still_open:
            os.close(number)


async def _read(descriptor: int) -> None:
    """Read and drop what comes."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    waiting = asyncio.Event()
    loop.add_reader(descriptor, waiting.set)
    try:
        while True:
            await waiting.wait()
            waiting.clear()
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 1 << 16)
    finally:
        loop.remove_reader(descriptor)


def _stop(run: TrialRun) -> float:
    """Send SIGTERM; seconds until the server has ended, at most a minute."""
    started = time.monotonic()
    with contextlib.suppress(psutil.Error):
        root = run.server.processes()[0]
        root.terminate()
        root.wait(60.0)
    return time.monotonic() - started


TRIAL: Final = Trial(
    "logs",
    "A log that nobody reads, or that is gone",
    "requests are answered as before, a killed worker is replaced, and SIGTERM ends the server "
    f"within {STOP_SECONDS:g} s",
    logs,
    starts_server=True,
)
