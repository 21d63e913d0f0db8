"""``cifar10 bench settings``: which number of workers, threads and images in a batch serves best.

Each choice is a server of its own, started anew in every round; every second round runs backwards.
On one core, the load generator has another. On all cores it shares them, as there is no other.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load.client import HttpClient
from bench.load.loops import Sent, closed_loop, run
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome
from bench.rows.files import Recorder
from bench.rows.kinds.settings import SettingsMeasurement
from bench.serving.cores import choose_cores, on_cores, pinned, usable
from bench.serving.process import DEFAULT_MAX_BATCH, Server
from bench.serving.target import Target
from bench.statistics.samples import percentile

SENT_IMAGES: Final = 500
"""Different pictures posted."""
_BATCHES: Final = (1, 8, 128)
"""Beside the default."""


@dataclass(frozen=True)
class Choice:
    """One server."""

    cores: tuple[int, ...]
    """Logical CPUs that it may use."""
    generator: int | None
    """The load generator's own; None: it shares those."""
    workers: int
    threads: int
    max_batch: int


@dataclass(frozen=True)
class SettingsPlan:
    """How long each choice is driven."""

    rounds: int = 3
    connections: int = 32
    warm_up_seconds: float = 0.7
    seconds: float = 3.0
    one_client_seconds: float = 1.0


QUICK_SETTINGS_PLAN: Final = SettingsPlan(1, 32, 0.2, 0.5, 0.2)


@dataclass
class _Found:
    requests_per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    one_client_p50_ms: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)


def choices(device: str) -> list[Choice]:
    """What is tried here: on one core (unless on a GPU), and on all that this process may use.

    Raises:
        BenchError: fewer than two CPUs, or a system that does not pin.
    """
    cores = choose_cores()
    every = usable()
    found = []
    if device == "cpu":
        found += _tried((cores.server,), cores.generator, ((1, 1), (2, 1), (1, 2)))
    layouts = ((len(every), 1), (1, 1), (1, len(every)), (2 * len(every), 1))
    return found + _tried(every, None, layouts)


def _tried(
    cores: tuple[int, ...], generator: int | None, layouts: Sequence[tuple[int, int]]
) -> list[Choice]:
    """Workers × threads with the default batch; for the first of them, other batches too."""
    sizes = [(layout, DEFAULT_MAX_BATCH) for layout in layouts]
    sizes += [(layouts[0], batch) for batch in _BATCHES]
    return [Choice(cores, generator, *layout, batch) for layout, batch in sizes]


def measure_settings(
    target: Target,
    name: str,
    digest: str,
    bodies: Sequence[bytes],
    recorder: Recorder,
    *,
    tried: Sequence[Choice],
    plan: SettingsPlan = SettingsPlan(),
    progress: Progress = silent,
) -> RunOutcome:
    """Measure each of ``tried`` and record a row for each.

    Args:
        target: where the models are, the device, and what starts the service.
        name: the model.
        digest: of its file.
        bodies: images as they are sent, in turn.
        recorder: gets the rows, all at the end.
        tried: what is tried.
        plan: how long.
        progress: told how far this is.

    Raises:
        BenchError: a server does not start, or a row could not be written.
    """
    found = [_Found() for _ in tried]
    total = plan.rounds * len(tried)
    for number in range(plan.rounds):
        ordered = list(zip(tried, found, strict=True))
        for done, (choice, told) in enumerate(ordered if number % 2 == 0 else ordered[::-1]):
            progress("settings", number * len(tried) + done, total)
            _measure(target, name, bodies, choice, plan, told)
    for choice, told in zip(tried, found, strict=True):
        measurement = SettingsMeasurement(
            device=target.device,
            cores=len(choice.cores),
            generator_shares=choice.generator is None,
            workers=choice.workers,
            threads=choice.threads,
            max_batch=choice.max_batch,
            connections=plan.connections,
            seconds=plan.seconds,
            requests_per_second=tuple(told.requests_per_second),
            p50_ms=tuple(told.p50_ms),
            p99_ms=tuple(told.p99_ms),
            one_client_p50_ms=tuple(told.one_client_p50_ms),
            resident_bytes=tuple(told.resident_bytes),
        )
        recorder.add(name, digest, None, measurement)
    outcome = RunOutcome()
    outcome.measured.append(name)
    return outcome


def _measure(
    target: Target,
    name: str,
    bodies: Sequence[bytes],
    choice: Choice,
    plan: SettingsPlan,
    told: _Found,
) -> None:
    settings = {
        "CIFAR10_WORKERS": str(choice.workers),
        "CIFAR10_THREADS": str(choice.threads),
        "CIFAR10_MAX_BATCH": str(choice.max_batch),
    }
    on = [*on_cores(choice.cores), *target.command]
    server = Server(
        target.models, load=(name,), device=target.device, command=on, settings=settings
    )
    own = pinned(choice.generator) if choice.generator is not None else contextlib.nullcontext()
    with own, server:
        drive = _driver(server, bodies)
        drive(plan.connections, plan.warm_up_seconds)
        sent = drive(plan.connections, plan.seconds)
        within = sent.answered_within(0, plan.seconds)
        told.requests_per_second.append(round(int(within.succeeded.sum()) / plan.seconds, 1))
        told.p50_ms.append(round(percentile(within.times_ms, 50), 3))
        told.p99_ms.append(round(percentile(within.times_ms, 99), 3))
        alone = drive(1, plan.one_client_seconds)
        told.one_client_p50_ms.append(round(percentile(alone.times_ms, 50), 3))
        told.resident_bytes.append(server.resident_bytes())


def _driver(server: Server, bodies: Sequence[bytes]) -> Callable[[int, float], Sent]:
    def drive(connections: int, seconds: float) -> Sent:
        async def work() -> Sent:
            client = HttpClient(server.url, "/classify?top_k=10", bodies, "image/jpeg")
            await client.open_connections(connections)
            try:
                return await closed_loop(
                    client.send, connections, seconds, check=server.check_alive
                )
            finally:
                client.close()

        return run(work())

    return drive
