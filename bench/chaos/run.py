"""``cifar10 bench chaos``: what the service does when it is hurt.

Each trial starts a server of its own, does one thing to it, and says whether what is promised held.
Traffic comes from this process, on the same machine, so rates here are not the server's best.
"""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]

from bench.chaos.inputs import Fuzzer, HostileRequest, bombs
from bench.chaos.large import large
from bench.chaos.reload import ADMINISTRATOR, reload
from bench.chaos.trial import USERS, ChaosPlan, Trial, traffic
from bench.commands.choices import model_of
from bench.load.client import NO_ANSWER, HttpClient
from bench.load.loops import closed_loop, open_loop, run
from bench.measure.in_process import RunOutcome
from bench.measure.progress import Progress, silent
from bench.rows.files import Recorder, Row
from bench.rows.kinds.chaos import ChaosMeasurement
from bench.serving.cores import on_cores, pinned, usable
from bench.serving.process import SERVE, Server
from cifar10.errors import BenchError
from cifar10.predictor import Device
from cifar10.store import ModelStore

SOAK_SHARE: Final = 0.7
RECOVERY_SECONDS: Final = 2.0
"""The promise: a killed worker is replaced within this."""
MEMORY_GROWTH: Final = 0.05
"""The promise: from a trial's second quarter to its last, memory grows by less than this. In the
first, workers make pages their own that they shared with the process which forked them, and fetch
what each kind of input needs."""
MEMORY_INPUTS: Final = 10_000
"""So many inputs a trial must have for that to be judged."""

_PROMISED_GROWTH: Final = (
    f"memory grows by less than {MEMORY_GROWTH:.0%} from the second quarter to the last"
)
_BETWEEN_SECONDS: Final = 4.0
_LOOK_SECONDS: Final = 0.01
_GIVE_UP_SECONDS: Final = 180.0
_MEMORY_EVERY_SECONDS: Final = 5.0
_FUZZ_CALLERS: Final = 16
_BY_DESIGN: Final = frozenset((503, 504))


async def kill(trial: Trial) -> ChaosMeasurement:
    """Kill a worker under load, several times."""
    recoveries: list[float] = []
    allowed = 0
    shares = []
    async with traffic(trial):
        for number in range(trial.plan.kills):
            trial.progress("chaos: kill", number, trial.plan.kills)
            await asyncio.sleep(_BETWEEN_SECONDS)
            counts = {one.pid: _connections(one, trial.server.port) for one in _workers(trial)}
            shares.append(min(counts.values()) / max(1, sum(counts.values())))
            victim = min(counts)
            # A connection carries one request at a time: these are the most that can be lost.
            allowed += counts[victim]
            psutil.Process(victim).send_signal(signal.SIGKILL)
            recoveries.append(await _until_replaced(trial, victim))
    failed = sum(count for status, count in trial.statuses.items() if status != 200)
    figures = {
        "kills": float(len(recoveries)),
        "failed_requests": float(failed),
        "connections_of_the_killed": float(allowed),
        "longest_recovery_s": max(recoveries),
        "median_recovery_s": float(np.median(recoveries)),
        "least_share_of_connections": min(shares),
    }
    holds = failed <= allowed and max(recoveries) < RECOVERY_SECONDS
    return trial.result(
        figures,
        f"all workers ready again within {RECOVERY_SECONDS:g} s; no request lost but those on the "
        "killed worker's connections",
        holds,
    )


async def fuzz(trial: Trial) -> ChaosMeasurement:
    """Send damaged requests; every one must be answered, and none by a failure of ours."""
    before = {one.pid for one in _workers(trial)}
    fuzzer, total = Fuzzer(trial.plan.seed), trial.plan.inputs
    numbers = iter(range(total))
    done = 0

    async def caller(client: HttpClient) -> None:
        nonlocal done
        for number in numbers:
            request = fuzzer.request(number)
            trial.statuses[await client.send_bytes(_bytes(trial, request))] += 1
            done += 1
            if done % 500 == 0:
                trial.progress("chaos: fuzz", done, total)
            if done % max(1, total // 20) == 0:
                trial.weigh()

    trial.weigh()
    client = trial.client()
    await asyncio.gather(*(caller(client) for _ in range(_FUZZ_CALLERS)))
    client.close()
    trial.weigh()
    died = len(before - {one.pid for one in _workers(trial)})
    failures = _failures(trial)
    growth = _growth(trial)
    figures = {
        "inputs": float(done),
        "seed": float(trial.plan.seed),
        "failures": float(failures),
        "workers_that_died": float(died),
        "memory_before_mb": trial.memory[0][1] / 1e6,
        "memory_after_mb": trial.memory[-1][1] / 1e6,
        "memory_growth_percent": 100 * growth,
    }
    promise = "every input is answered, by no 5xx but 503 and 504; no worker dies"
    holds = failures == 0 and died == 0
    if total >= MEMORY_INPUTS:
        promise += f"; {_PROMISED_GROWTH}"
        holds = holds and growth < MEMORY_GROWTH
    return trial.result(figures, promise, holds)


async def bomb(trial: Trial) -> ChaosMeasurement:
    """Send small bodies that ask for much, while others are served."""
    before = {one.pid for one in _workers(trial)}
    corpus = list(bombs())
    client, others = trial.client(), trial.client()
    peak, longest, bystanders = 0, 0.0, Counter[int]()
    trial.weigh()
    for number, request in enumerate(corpus):
        trial.progress(f"chaos: {request.kind}", number, len(corpus))
        start = time.monotonic()
        sent = asyncio.ensure_future(client.send_bytes(_bytes(trial, request)))
        while not sent.done():
            bystanders[await others.send(number)] += 1
            peak = max(peak, trial.server.memory_bytes())
        trial.statuses[sent.result()] += 1
        longest = max(longest, time.monotonic() - start)
        trial.weigh()
    client.close()
    others.close()
    died = len(before - {one.pid for one in _workers(trial)})
    failures = _failures(trial)
    figures = {
        "bombs": float(len(corpus)),
        "failures": float(failures),
        "workers_that_died": float(died),
        "longest_answer_s": longest,
        "other_requests": float(bystanders.total()),
        "other_requests_failed": float(bystanders.total() - bystanders[200]),
        "memory_before_mb": trial.memory[0][1] / 1e6,
        "memory_peak_mb": peak / 1e6,
        "memory_after_mb": trial.memory[-1][1] / 1e6,
    }
    holds = failures == 0 and died == 0 and bystanders.total() == bystanders[200]
    promise = "every bomb is answered, no worker dies, other clients are all served meanwhile"
    return trial.result(figures, promise, holds)


async def soak(trial: Trial) -> ChaosMeasurement:
    """A steady load below capacity, for long, with the memory weighed all along."""
    client, plan = trial.client(), trial.plan
    await client.open_connections(USERS)
    capacity_seconds = min(5.0, plan.soak_seconds)
    flat_out = await closed_loop(client.send, USERS, capacity_seconds)
    capacity = float(flat_out.succeeded.sum()) / capacity_seconds
    rate, trial.began = SOAK_SHARE * capacity, time.monotonic()

    async def send(number: int) -> int:
        status = await client.send(number)
        trial.statuses[status] += 1
        return status

    async def watch() -> None:
        while True:
            trial.weigh()
            trial.progress("chaos: soak", int(trial.memory[-1][0]), int(plan.soak_seconds))
            await asyncio.sleep(min(_MEMORY_EVERY_SECONDS, plan.soak_seconds / 20))

    watching = asyncio.ensure_future(watch())
    try:
        # In parts, so that what is kept of each request does not grow for half an hour.
        times = []
        left, part = plan.soak_seconds, 0
        while left > 0:
            seconds = min(60.0, left)
            sent = await open_loop(send, rate, seconds, seed=plan.seed + part)
            times.append(sent.times_ms.astype(np.float32))
            left, part = left - seconds, part + 1
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        client.close()
    trial.weigh()
    growth = _growth(trial)
    every = np.concatenate(times) if times else np.zeros(1, np.float32)
    failed = sum(count for status, count in trial.statuses.items() if status != 200)
    figures = {
        "capacity_requests_per_s": capacity,
        "offered_requests_per_s": rate,
        "failed_requests": float(failed),
        "p50_ms": float(np.percentile(every, 50)),
        "p99_ms": float(np.percentile(every, 99)),
        "worst_minute_p99_ms": max(
            (float(np.percentile(minute, 99)) for minute in times if minute.size), default=0.0
        ),
        "memory_growth_percent": 100 * growth,
        "memory_last_mb": trial.memory[-1][1] / 1e6,
    }
    promise = f"no request fails at {SOAK_SHARE:.0%} of capacity; {_PROMISED_GROWTH}"
    return trial.result(figures, promise, failed == 0 and growth < MEMORY_GROWTH)


Run = Callable[[Trial], Coroutine[Any, Any, ChaosMeasurement]]
TRIALS: Final[dict[str, Run]] = {
    "kill": kill,
    "reload": reload,
    "fuzz": fuzz,
    "bombs": bomb,
    "large": large,
    "soak": soak,
}
"""In the order in which they are run: the longest last."""


def hurt_service(
    models: Path,
    model: str | None,
    names: Sequence[str],
    recorder: Recorder,
    plan: ChaosPlan,
    *,
    device: Device = "auto",
    progress: Progress = silent,
) -> RunOutcome:
    """Run the trials named, or all, and record each as soon as it is over.

    Raises:
        BenchError: no such trial or model, or a row could not be written.
    """
    for name in names:
        if name not in TRIALS:
            message = f"no trial {name!r}; there are: {', '.join(TRIALS)}"
            raise BenchError(message)
    store, outcome = ModelStore(models), RunOutcome()
    chosen = model_of(store, model, device)
    card = store.card(chosen)
    try:
        for name in names or TRIALS:
            try:
                found = run_trial(name, models, chosen, plan, device=device, progress=progress)
            except Exception as error:  # any reason is that trial's failure row
                recorder.add_failure(chosen, card.sha256, "chaos", error)
                outcome.failed[name] = f"failed: {type(error).__name__}: {error}"
                continue
            recorder.add(chosen, card.sha256, None, found)
            outcome.measured.append(name)
            if not found.holds:
                outcome.failed[name] = f"did not hold: {found.promise}; {found.figures}"
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def trials_in(rows: Sequence[Row], model: str, workers: int) -> set[str]:
    """Those that have been carried out on that; the soak may have had to do with fewer workers."""
    return {
        found.trial
        for row in rows
        if isinstance(found := row.measurement, ChaosMeasurement)
        and row.model == model
        and (found.workers == workers or (found.trial == "soak" and found.workers < workers))
    }


def run_trial(
    name: str,
    models: Path,
    model: str,
    plan: ChaosPlan,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> ChaosMeasurement:
    """One trial, on a server of its own.

    Raises:
        BenchError: the server does not start.
    """
    command: Sequence[str] = SERVE
    own_core: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    cores = usable()
    if name == "soak" and len(cores) > 1:
        # At a steady rate, a generator that shares the server's cores takes the more from it the
        # further both fall behind.
        command = (*on_cores(cores[:-1]), *SERVE)
        own_core = pinned(cores[-1])
        plan = replace(plan, workers=min(plan.workers, len(cores) - 1))
    with tempfile.TemporaryDirectory(prefix="bench-chaos-") as folder:
        store = Path(folder)
        shutil.copytree(models / model, store / model)
        settings = {
            "CIFAR10_WORKERS": str(plan.workers),
            "CIFAR10_ADMIN_TOKEN": ADMINISTRATOR,
        }
        server = Server(store, load=[model], device=device, command=command, settings=settings)
        with own_core, server:
            return run(TRIALS[name](Trial(name, server, store, model, plan, progress)))


def _bytes(trial: Trial, request: HostileRequest) -> bytes:
    whole = request.bytes_for("127.0.0.1")
    return whole.replace(b"{model}", trial.model.encode(), 1)


def _growth(trial: Trial) -> float:
    """Of the memory weighed, from the second quarter (or the first, of very few) to the last."""
    sizes = [size for _, size in trial.memory]
    quarter = max(1, len(sizes) // 4)
    early = sizes[quarter : 2 * quarter] or sizes[:1]
    return float(np.median(sizes[-quarter:]) / np.median(early)) - 1


def _failures(trial: Trial) -> int:
    """Answers that are the server's fault, and requests that got none."""
    return sum(
        count
        for status, count in trial.statuses.items()
        if status == NO_ANSWER or (status >= 500 and status not in _BY_DESIGN)
    )


def _workers(trial: Trial) -> list[psutil.Process]:
    return trial.server.workers()


def _connections(process: psutil.Process, port: int) -> int:
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
        for one in process.net_connections("tcp")
    )


async def _until_replaced(trial: Trial, victim: int) -> float:
    """Seconds until the killed worker is gone and the server says that all are ready; each
    question on a connection of its own, which any worker may accept."""
    start = time.monotonic()
    async with httpx.AsyncClient(timeout=5, headers={"connection": "close"}) as client:
        while True:
            if not psutil.pid_exists(victim):
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"{trial.server.url}/readyz")
                    if answer.status_code == httpx.codes.OK:
                        return time.monotonic() - start
            if time.monotonic() - start > _GIVE_UP_SECONDS:
                message = f"the killed worker was not replaced within {_GIVE_UP_SECONDS:g} s"
                raise BenchError(message)
            await asyncio.sleep(_LOOK_SECONDS)
