"""Trial ``fuzz``: many hostile inputs, most of them in process.

In process, a million inputs take minutes on one core (:mod:`bench.chaos.in_process`). A smaller
number goes over sockets to a server with several workers, whose processes and memory are monitored.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench.chaos.in_process import PROGRESS_FILE, SNAPSHOT_FILE, UNDESIGNED, Snapshot
from bench.chaos.inputs import Fuzzer, HostileInput
from bench.chaos.soak import MEMORY_GROWTH, PROMISED_GROWTH
from bench.chaos.trial import Trial, TrialRun, Verdict, growth
from bench.load.client import HttpClient
from bench.serving.cores import usable
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError

MEMORY_INPUTS: Final = 10_000
"""Minimum number of inputs for judging the growth of memory."""
_CALLERS: Final = 16
_HUNG_SECONDS: Final = 60.0
_START_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.2
_MOST_CRASHES: Final = 20


@dataclass
class Fed:
    """Results of all inputs in process."""

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    undesigned: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    longest_cpu_s: float = 0.0
    longest_number: int = -1

    def add(self, found: "Snapshot | Fed") -> None:
        """Add another snapshot; its memory only if its process continues with the same inputs."""
        self.outcomes.update(found.outcomes)
        self.statuses.update(found.statuses)
        self.undesigned += found.undesigned
        if found.longest_cpu_s > self.longest_cpu_s:
            self.longest_cpu_s, self.longest_number = found.longest_cpu_s, found.longest_number
        if isinstance(found, Fed):
            self.crashes += found.crashes
        else:
            self.memory += found.memory

    @property
    def growth(self) -> float:
        """Growth of the memory, as defined by :func:`bench.chaos.trial.growth`."""
        return growth([(float(at), size) for at, size in enumerate(self.memory)] or [(0.0, 1)])


Feed = Callable[[int, int], tuple[Snapshot, int | None, str]]
"""Function that feeds ``count`` inputs from ``first`` in a child process.

It returns the findings, the number of the input at which the process ended early (None: it did
not), and the reason.
"""


async def fuzz(run: TrialRun) -> Verdict:
    """Feed hostile inputs in process, then send some over sockets."""
    plan = run.plan
    started = time.monotonic()
    stop = threading.Event()
    try:
        parts = await asyncio.to_thread(feed_in_processes, run, stop)
    finally:
        stop.set()  # after Ctrl-C the monitoring threads stop the processes and return
    fed_s = time.monotonic() - started
    fed = Fed()
    for part in parts:
        fed.add(part)
    run.statuses.update(fed.statuses)
    sent = min(plan.sent_inputs, plan.inputs)
    with run.serve():
        died = await _send_all(run, sent)
    figures = {
        "inputs": float(sum(fed.outcomes.values()) + len(fed.crashes)),
        "seed": float(plan.seed),
        "crashes": float(len(fed.crashes)),
        "undesigned": float(
            sum(count for name, count in fed.outcomes.items() if f": {UNDESIGNED}" in name)
        ),
        "processes": float(len(parts)),
        "in_process_s": fed_s,
        "longest_input_cpu_ms": 1e3 * fed.longest_cpu_s,
        "longest_input": float(fed.longest_number),
        "in_process_memory_mb": max(max(part.memory, default=0) for part in parts) / 1e6,
        "in_process_memory_growth_percent": 100 * max((part.growth for part in parts), default=0.0),
        "sent_over_sockets": float(sent),
        "failures_over_sockets": float(run.failures()),
        "workers_that_died": float(died),
        "memory_before_mb": run.memory[0][1] / 1e6,
        "memory_after_mb": run.memory[-1][1] / 1e6,
        "memory_growth_percent": 100 * growth(run.memory),
    }
    promise = _PROMISE if plan.inputs >= MEMORY_INPUTS else _PROMISE.partition(";")[0]
    return Verdict(
        figures, [*judge(figures), *fed.crashes, *fed.undesigned[:5]], fed.outcomes, promise
    )


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = [
        f"{figures[name]:,.0f} {what}"
        for name, what in (
            ("crashes", "inputs ended or hung the process"),
            ("undesigned", "inputs had an outcome that is not by design"),
            ("failures_over_sockets", "requests got no answer or a 5xx that is not by design"),
            ("workers_that_died", "workers died"),
        )
        if figures[name]
    ]
    for name, fewest, where in (
        ("memory_growth_percent", figures["sent_over_sockets"], "the server's memory"),
        ("in_process_memory_growth_percent", figures["inputs"], "the memory in process"),
    ):
        if fewest >= MEMORY_INPUTS and figures[name] >= 100 * MEMORY_GROWTH:
            broken.append(f"{where} grew by {figures[name]:.1f} %")
    return broken


def feed_in_processes(run: TrialRun, stop: threading.Event) -> list[Fed]:
    """Feed all inputs of the plan to the service, in one process per core; return each one's
    findings."""

    def feed(part: tuple[int, int]) -> Fed:
        with tempfile.TemporaryDirectory(prefix="bench-fuzz-") as folder:
            return feed_around_crashes(_Feeder(run, Path(folder), stop).feed, *part)

    parts = split(run.plan.inputs, max(1, len(usable())))
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(feed, parts))


def split(count: int, parts: int) -> list[tuple[int, int]]:
    """Split ``count`` into ranges of about equal length: (first, how many)."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return [(first, end - first) for first, end in pairwise(bounds) if end > first]


def feed_around_crashes(feed: Feed, first: int, count: int) -> Fed:
    """Feed ``count`` inputs from ``first`` and continue after crashes.

    After a crash, a new process gets the inputs not yet reported, except the one that crashed.

    Raises:
        BenchError: the process crashed too many times.
    """
    fed, left = Fed(), [(first, count)]
    while left:
        start, many = left.pop(0)
        found, at, how = feed(start, many)
        fed.add(found)
        if at is None:
            continue
        fed.crashes.append(f"input {at} {how}")
        if len(fed.crashes) >= _MOST_CRASHES:
            message = f"gave up after {_MOST_CRASHES} crashes: {'; '.join(fed.crashes)}"
            raise BenchError(message)
        again = [(found.following, at - found.following), (at + 1, start + many - at - 1)]
        left = [one for one in again if one[1] > 0] + left
    return fed


class _Feeder:
    """Starts and monitors :mod:`bench.chaos.in_process`."""

    def __init__(self, run: TrialRun, folder: Path, stop: threading.Event) -> None:
        self._run = run
        self._folder = folder
        self._stop = stop

    def feed(self, first: int, count: int) -> tuple[Snapshot, int | None, str]:
        """See :data:`Feed`."""
        run, folder = self._run, self._folder
        progress, snapshot = folder / PROGRESS_FILE, folder / SNAPSHOT_FILE
        progress.write_bytes(bytes(8))
        snapshot.unlink(missing_ok=True)
        arguments = (run.plan.seed, first, count, run.model, folder)
        with (folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "bench.chaos.in_process", *map(str, arguments)],
                cwd=PROJECT_ROOT,
                env=os.environ | self._settings(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                how = self._watch(process, progress)
            finally:
                process.kill()
                process.wait()
        found = Snapshot.from_json(snapshot.read_text()) if snapshot.exists() else Snapshot(first)
        if how is None:
            return found, None, ""
        at = int.from_bytes(progress.read_bytes(), "little")
        if not at and found.following == first:
            words = (folder / "output.txt").read_text(errors="replace")[-2_000:]
            message = f"the service cannot be fed in process: it {how}\n{words}"
            raise BenchError(message)
        return found, at, how

    def _settings(self) -> dict[str, str]:
        run = self._run
        return {
            "CIFAR10_MODELS": str(run.store),
            "CIFAR10_LOAD": run.model,
            "CIFAR10_DEVICE": "cpu",
            "CIFAR10_WORKERS": "1",
            "BENTOML_HOME": str(self._folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }

    def _watch(self, process: "subprocess.Popen[bytes]", progress: Path) -> str | None:
        """Wait for the process to end; return the reason, or None after a normal exit."""
        run, last, since = self._run, -1, time.monotonic()
        while process.poll() is None:
            if self._stop.wait(_LOOK_SECONDS):
                message = "the fuzz was interrupted"
                raise BenchError(message)
            number = int.from_bytes(progress.read_bytes(), "little")
            run.progress("chaos: fuzz", number, run.plan.inputs)
            now = time.monotonic()
            if number != last:
                last, since = number, now
            elif now - since > (_HUNG_SECONDS if number else _START_SECONDS):
                return f"did not end within {now - since:.0f} s"
        code = process.returncode
        if code == 0:
            return None
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def _send_all(run: TrialRun, count: int) -> int:
    """Send ``count`` well-formed inputs over sockets; return the number of workers that died."""
    before = run.worker_ids()
    inputs = well_formed(Fuzzer(run.plan.seed, run.model), count)
    done = 0

    async def caller(client: HttpClient) -> None:
        nonlocal done
        for one in inputs:
            run.statuses[await client.send_bytes(one.content)] += 1
            done += 1
            if done % 500 == 0:
                run.progress("chaos: fuzz over sockets", done, count)
            if done % max(1, count // 20) == 0:
                run.weigh()

    run.weigh()
    client = run.client()
    await asyncio.gather(*(caller(client) for _ in range(_CALLERS)))
    client.close()
    run.weigh()
    return len(before - run.worker_ids())


def well_formed(fuzzer: Fuzzer, count: int) -> Iterator[HostileInput]:
    """Yield the first ``count`` inputs that require a response."""
    number = found = 0
    while found < count:
        one = fuzzer.input(number)
        number += 1
        if one.well_formed:
            found += 1
            yield one


_PROMISE: Final = (
    "every refusal is by design: no 5xx but 503 and 504, no crash, no worker dies; "
    + PROMISED_GROWTH
)

TRIAL: Final = Trial("fuzz", "Hostile inputs", _PROMISE, fuzz, starts_server=True)
