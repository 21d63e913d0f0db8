"""Shared part of all attack trials: an attack runs while ordinary clients are measured.

Windows alternate: ordinary clients alone, then the same clients under attack. Afterwards memory has
a minute to return to its earlier level. The attackers run in their own process at a lower priority,
because they share this machine's cores with the server, unlike a real attacker.
"""

import asyncio
import contextlib
import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from bench.chaos.bystanders import (
    MEMORY_BACK,
    SLOWER,
    Bystanders,
    judge_memory,
    judge_times,
    settle,
    weighing,
)
from bench.chaos.raw import AttackResult, Target
from bench.chaos.trial import Trial, TrialRun, Verdict, undesigned
from bench.load.client import NO_ANSWER

PROMISE: Final = (
    "no 5xx but designed 503 and 504, no worker lost, the 99th percentile of other clients at most "
    f"{SLOWER:g} times theirs alone, memory back within {MEMORY_BACK:.0%} a minute later"
)
_NICENESS: Final = 10
_MOST_MEMORY_SAMPLES: Final = 120

Judge = Callable[[Mapping[str, float]], list[str]]
After = Callable[[TrialRun], Awaitable[dict[str, float]]]


def nothing_more(figures: Mapping[str, float]) -> list[str]:
    """Return no further broken promises: only the common criteria apply."""
    return []


@dataclass(frozen=True)
class Attack:
    """An attack.

    Every function is at module level, so that it can be sent to another process.
    """

    wage: Callable[[Target], AttackResult]
    """Attacks for ``target.seconds``."""
    prepare: Callable[[], object] | None = None
    """Prepares the data that ``wage`` sends, before the first window."""
    judge: Judge = nothing_more
    """Returns broken parts of the promise, in addition to the common criteria."""
    after: After | None = None
    """Further step after the memory has been measured."""
    photos: bool = False
    """Whether ordinary clients also send photos."""
    seconds: float | None = None
    """Duration of the attack's one window, if the plan's is too short."""
    headers: Mapping[str, str] | None = None
    """Additional headers of ordinary clients."""


def attack_trial(
    name: str,
    title: str,
    attack: Attack,
    *,
    more_promised: str = "",
    settings: Mapping[str, str] | None = None,
) -> Trial:
    """Return a trial that runs ``attack`` alongside ordinary clients."""
    promise = f"{PROMISE}; {more_promised}" if more_promised else PROMISE
    return Trial(name, title, promise, functools.partial(_run, attack), settings=settings or {})


async def _run(attack: Attack, run: TrialRun) -> Verdict:
    plan = run.plan
    rounds = plan.attack_rounds if attack.seconds is None else 1
    seconds = plan.attack_seconds if attack.seconds is None or plan.short else attack.seconds
    target = Target("127.0.0.1", run.server.port, run.model, plan.seed, seconds)
    bystanders = Bystanders(run, photos=attack.photos, headers=attack.headers)
    loop = asyncio.get_running_loop()
    before = run.worker_ids()
    seen: Counter[int] = Counter()
    counted: dict[str, float] = {}
    with _attackers() as pool:
        if attack.prepare is not None:
            await loop.run_in_executor(pool, attack.prepare)
        baseline = peak = await bystanders.warm_up()
        for number in range(rounds):
            run.progress(f"chaos: {run.name}", number, rounds)
            await bystanders.alone(plan.attack_seconds, plan.seed + number)
            aimed = replace(target, seed=plan.seed + number)
            waging = loop.run_in_executor(pool, attack.wage, aimed)
            async with weighing(run) as sizes:
                await bystanders.attacked(seconds, plan.seed + 100 + number)
                result = await waging
            peak = max(peak, *sizes, run.weigh())
            seen.update(result.statuses)
            for figure, value in result.figures.items():
                counted[figure] = counted.get(figure, 0.0) + value
            memory = await settle(run, baseline)
    lost = len(before - run.worker_ids())
    more = await attack.after(run) if attack.after is not None else {}
    unanswered = seen.pop(NO_ANSWER, 0)  # the server may close it without a response
    figures = {
        "attack_requests": float(seen.total() + unanswered),
        "attack_requests_unanswered": float(unanswered),
        "attack_requests_failed": float(undesigned(seen)),
        **bystanders.close(),
        "workers_lost": float(lost),
        "memory_peak_mb": peak / 1e6,
        **memory,
        **counted,
        **more,
    }
    run.statuses.update(seen)
    run.memory = run.memory[:: 1 + len(run.memory) // _MOST_MEMORY_SAMPLES]
    return Verdict(figures, [*judge(figures), *attack.judge(figures)])


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise common to all attacks."""
    broken = []
    if figures["attack_requests_failed"]:
        broken.append(
            f"{figures['attack_requests_failed']:.0f} requests of the attack got a 5xx that is not "
            "by design"
        )
    if figures["workers_lost"]:
        broken.append(f"{figures['workers_lost']:.0f} workers were lost")
    return [*broken, *judge_times(figures), *judge_memory(figures)]


@contextlib.contextmanager
def _attackers() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=os.nice, initargs=(_NICENESS,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
