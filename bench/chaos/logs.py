"""Trial ``logs``: the server's log output is not consumed.

In one run the log is a pipe whose reader has closed it, in the other a full pipe without a reader.
In both, requests continue, a worker is killed, and then the server gets SIGTERM.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from typing import Final

import psutil  # type: ignore[import-untyped]

from bench.chaos.bystanders import Bystanders
from bench.chaos.kill import judge_beside, kill_beside
from bench.chaos.trial import Trial, TrialRun, Verdict

STOP_SECONDS: Final = 20.0
_PIPE_BYTES: Final = 4_096
_LOGGED: Final = {"CIFAR10_ACCESS_LOG": "1", "PYTHONUNBUFFERED": ""}
"""Settings that log every request, with Python's output buffered as in production."""

DEAD: Final = "dead"
BLOCKED: Final = "blocked"


async def logs(run: TrialRun) -> Verdict:
    """Serve with a broken log pipe, then with a blocked one."""
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
        # Until the fault begins, the log is read, as a container runtime does.
        await asyncio.to_thread(stack.enter_context, run.serve(_LOGGED, output=writer))
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
        killed = await kill_beside(bystanders, run)
        figures = bystanders.close()
        stop_s = await asyncio.to_thread(_stop, run)
    return {**figures, **killed, "stop_s": stop_s}


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise for one kind of log."""
    broken = judge_beside(figures)
    if figures["stop_s"] > STOP_SECONDS:
        broken.append(f"SIGTERM did not end the server within {STOP_SECONDS:g} s")
    return broken


@contextlib.contextmanager
def _descriptors(*numbers: int) -> Iterator[dict[int, int]]:
    """Yield file descriptors by number and close them at the end."""
    still_open = {number: number for number in numbers}
    try:
        yield still_open
    finally:
        for number in still_open:
            os.close(number)


async def _read(descriptor: int) -> None:
    """Read and discard data."""
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
    """Send SIGTERM; return the seconds until the server has ended, at most a minute."""
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
