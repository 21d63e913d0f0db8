"""``cifar10 bench fleet``: run the scenarios of the drill and record a row for each."""

import asyncio
import contextlib
import logging
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.fleet.balancer import URL, Balancer, balancer
from bench.fleet.network import DrillSkippedError, Host, private_network
from bench.fleet.replicas import Replica
from bench.fleet.scenarios import OUT_SECONDS, SCENARIOS, Fleet, Scenario
from bench.load.bodies import encode_png
from bench.load.client import HttpClient
from bench.load.drive import connected
from bench.load.loops import open_loop
from bench.load.loops import run as run_on_exact_loop
from bench.load.sent import NO_ANSWER, Sent
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome, Survey
from bench.rows.files import Recorder
from bench.rows.kinds.fleet import FleetMeasurement
from cifar10.errors import BenchError
from cifar10.store import ModelStore

logger = logging.getLogger(__name__)

REPLICAS: Final = 3
"""Number of servers in ``deploy/haproxy.cfg``."""
_CONNECTIONS: Final = 32
_PICTURES: Final = 64


@dataclass(frozen=True)
class FleetPlan:
    """Rate and sizes of the drill."""

    rate_per_s: float = 400.0
    requests: int = 100_000
    """Number of requests of a repeated scenario."""
    seconds: float = 40.0
    """Duration of the others."""
    quiet_seconds: float = 5.0
    """Time before the first fault."""
    workers: int = 1
    seed: int = 20_261_128

    @classmethod
    def quick(cls, rate_per_s: float) -> "FleetPlan":
        """Return a small plan that only checks that the scenarios work."""
        return cls(rate_per_s, requests=int(10 * rate_per_s), seconds=10.0, quiet_seconds=1.0)


def run_fleet(
    models: Path,
    model: str,
    names: Sequence[str],
    recorder: Recorder,
    plan: FleetPlan,
    progress: Progress = silent,
) -> RunOutcome:
    """Run the named scenarios, or all, on one fleet; after an error, on a new one.

    Raises:
        BenchError: the model is unknown, or a row could not be written.
    """
    digest = ModelStore(models).card(model).sha256
    chosen = [SCENARIOS[name] for name in names or SCENARIOS]
    started: tuple[list[Replica], Balancer] | None = None
    with Survey(recorder) as survey, contextlib.ExitStack() as stack:
        for number, scenario in enumerate(chosen):
            progress(f"fleet: {scenario.name}", number, len(chosen))
            with survey.attempt(scenario.name, "fleet", model=model, digest=digest) as subject:
                try:
                    started = started or _start(stack, models, model, plan)
                    load_average = os.getloadavg()[0]
                    fleet = Fleet(*started)
                    sent = run_on_exact_loop(_drill(scenario, fleet, plan))
                except DrillSkippedError as reason:
                    logger.warning("the drill was skipped: %s", reason)
                    break
                except Exception:
                    stack.close()  # a scenario that ends early may leave a replica damaged
                    started = None
                    raise
                found = measurement_of(scenario, fleet, plan, sent, load_average)
                subject.add(found)
                if found.broken:
                    subject.blame(f"did not hold: {'; '.join(found.broken)}")
    return survey.outcome


def _start(
    stack: contextlib.ExitStack, models: Path, model: str, plan: FleetPlan
) -> tuple[list[Replica], Balancer]:
    """Start the hosts, a replica on each, and the balancer.

    Raises:
        DrillSkippedError: this machine cannot run the drill.
        BenchError: one does not start.
    """
    stack.enter_context(private_network())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-fleet-")))
    hosts = [stack.enter_context(Host(number)) for number in range(1, REPLICAS + 1)]
    replicas = [
        stack.enter_context(Replica(f"r{number}", host, models, model, folder, plan.workers))
        for number, host in enumerate(hosts, 1)
    ]
    return replicas, stack.enter_context(balancer(folder))


async def _drill(scenario: Scenario, fleet: Fleet, plan: FleetPlan) -> Sent:
    chance = np.random.default_rng(plan.seed)
    pixels = chance.integers(0, 256, (_PICTURES, 32, 32, 3), np.uint8)
    client = HttpClient(URL, "/classify", [encode_png(one) for one in pixels])
    seconds = plan.requests / plan.rate_per_s if scenario.is_repeated else plan.seconds
    for replica in fleet.replicas:
        await fleet.back(replica, asyncio.get_running_loop().time())
    fleet.back_s.clear()
    fleet.until = asyncio.get_running_loop().time() + seconds
    async with connected(client, _CONNECTIONS):
        load = open_loop(client.send, plan.rate_per_s, seconds, seed=plan.seed)
        requests = asyncio.ensure_future(load)
        try:
            await asyncio.sleep(plan.quiet_seconds)
            await scenario.run(fleet)
            return await requests
        finally:
            requests.cancel()


def measurement_of(
    scenario: Scenario, fleet: Fleet, plan: FleetPlan, sent: Sent, load_average: float
) -> FleetMeasurement:
    """Return the row of a finished scenario."""
    statuses = Counter(sent.status.tolist())
    successes = np.sort(sent.done_s[sent.succeeded])
    gap = float(np.diff(successes).max()) if successes.size > 1 else float(sent.done_s.max())
    failed, allowed = sent.failed, scenario.allowed(fleet)
    broken = []
    if failed > allowed:
        broken.append(f"{failed:,} of {sent.queries:,} requests failed; {allowed:,} may")
    slowest = max(fleet.out_of_rotation_s, default=0.0)
    if scenario.must_be_out and slowest > OUT_SECONDS:
        broken.append(f"a replica was out of rotation after {slowest:.1f} s")
    quiet = sent.due_s < plan.quiet_seconds
    return FleetMeasurement(
        scenario=scenario.name,
        title=scenario.title,
        promise=scenario.promise,
        balancer=_balancer_version(),
        replicas=len(fleet.replicas),
        workers=plan.workers,
        rate_per_s=plan.rate_per_s,
        seconds=round(float(sent.done_s.max()), 1),
        status_counts={
            str(status) if status != NO_ANSWER else "no answer": count
            for status, count in sorted(statuses.items())
        },
        longest_gap_s=round(gap, 3),
        quiet_p99_ms=_part(sent, quiet).percentile_ms(99),
        p99_ms=_part(sent, ~quiet).percentile_ms(99),
        faults=fleet.faults,
        out_of_rotation_s=tuple(fleet.out_of_rotation_s),
        in_flight=fleet.in_flight,
        sent_to_faulty=fleet.sent_to_faulty,
        back_s=tuple(fleet.back_s),
        broken=tuple(broken),
        load_average=round(load_average, 2),
    )


def _part(sent: Sent, kept: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> Sent:
    return Sent(sent.due_s[kept], sent.sent_s[kept], sent.done_s[kept], sent.status[kept])


def _balancer_version() -> str:
    done = subprocess.run(["haproxy", "-v"], capture_output=True, text=True)  # noqa: S607
    words = done.stdout.split()
    if len(words) < 3:
        message = f"haproxy -v said {done.stdout!r}"
        raise BenchError(message)
    return f"HAProxy {words[2]}"
