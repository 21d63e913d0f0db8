"""Throughput by number of workers, threads and batch size (``bench settings``).

Each choice gets its own server, restarted in every round. With the server on one core, the load
generator has another core; with the server on all cores, they share.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load.client import HttpClient
from bench.load.drive import Driver
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome, Survey, in_turns
from bench.rows.files import Recorder, published
from bench.rows.kinds.service import DEFAULT_MAX_BATCH, SettingsMeasurement
from bench.rows.kinds.session import FailureMeasurement
from bench.serving.cores import choose_cores, on_cores, pinned, usable
from bench.serving.process import Server, device_named
from bench.serving.target import Target

STAGE: Final = "settings"
SENT_IMAGES: Final = 500
"""Number of different images posted."""
_BATCHES: Final = (1, 8, 128)
"""Batch sizes tried besides the default."""


@dataclass(frozen=True)
class Choice:
    """Settings of one server."""

    cores: tuple[int, ...]
    """Logical CPUs that the server may use."""
    generator: int | None
    """CPU of the load generator; None: it shares the server's CPUs."""
    workers: int
    threads: int
    max_batch: int

    @property
    def title(self) -> str:
        """Name in outcomes and failure rows."""
        return (
            f"workers={self.workers} threads={self.threads} batch={self.max_batch} "
            f"cores={len(self.cores)}"
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the service."""
        return {
            "CIFAR10_WORKERS": str(self.workers),
            "CIFAR10_THREADS": str(self.threads),
            "CIFAR10_MAX_BATCH": str(self.max_batch),
        }


@dataclass(frozen=True)
class SettingsPlan:
    """Durations of the measurement."""

    rounds: int = 3
    connections: int = 32
    warm_up_seconds: float = 0.7
    seconds: float = 3.0
    one_client_seconds: float = 1.0


QUICK_SETTINGS_PLAN: Final = SettingsPlan(1, 32, 0.2, 0.5, 0.2)


@dataclass
class _Rounds:
    """Figures of one choice, one of each kind a round."""

    requests_per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    one_client_p50_ms: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)


def choices(device: str) -> list[Choice]:
    """Return the choices to try: on one core (unless on a GPU), and on all usable cores.

    Raises:
        BenchError: there are fewer than two CPUs, or the system cannot pin processes.
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
    """Return workers × threads with the default batch; for the first pair, other batches too."""
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
    """Measure and record each choice, interleaved; a failure is recorded as a row.

    A choice's row is written after its last round. If it is interrupted or fails in a later round,
    the row contains the finished rounds.

    Args:
        target: model store, device and command of the service.
        bodies: encoded images, sent in turn.

    Raises:
        BenchError: a row could not be written.
    """
    rounds = {choice: _Rounds() for choice in tried}
    unwritten = dict.fromkeys(tried)

    def write(survey: Survey, choice: Choice) -> None:
        found = rounds[choice]
        if choice not in unwritten or not found.resident_bytes:
            return
        del unwritten[choice]
        measurement = SettingsMeasurement(
            device=device_named(target.device),
            cores=len(choice.cores),
            generator_shares=choice.generator is None,
            workers=choice.workers,
            threads=choice.threads,
            max_batch=choice.max_batch,
            connections=plan.connections,
            seconds=plan.seconds,
            **{figure: tuple(values) for figure, values in vars(found).items()},
        )
        with survey.attempt(choice.title, STAGE) as subject:
            subject.add(measurement)

    with Survey(recorder) as survey:
        try:
            for done, (number, choice) in enumerate(in_turns(tried, plan.rounds)):
                if choice.title in survey.outcome.failed:
                    continue
                progress(STAGE, done, plan.rounds * len(tried))
                title = choice.title

                def explain(error: Exception, title: str = title) -> FailureMeasurement:
                    reason = f"{title}: {published(error)}"
                    return FailureMeasurement(STAGE, type(error).__name__, reason)

                with survey.attempt(title, STAGE, model=name, digest=digest, explain=explain):
                    _measure(target, name, bodies, choice, plan, rounds[choice])
                if number == plan.rounds:
                    write(survey, choice)
        finally:
            for choice in tried:
                write(survey, choice)
    return survey.outcome


def _measure(
    target: Target,
    name: str,
    bodies: Sequence[bytes],
    choice: Choice,
    plan: SettingsPlan,
    rounds: _Rounds,
) -> None:
    """Measure one round of one choice."""
    server = Server(
        target.models,
        load=(name,),
        device=target.device,
        command=[*on_cores(choice.cores), *target.command],
        settings=choice.environment,
    )
    own = pinned(choice.generator) if choice.generator is not None else contextlib.nullcontext()
    with own, server:
        client = HttpClient(server.url, "/classify?top_k=10", bodies, "image/jpeg")
        driver = Driver(client, server.check_alive)
        driver.closed(plan.connections, plan.warm_up_seconds)
        sent = driver.closed(plan.connections, plan.seconds).sent
        within = sent.answered_within(0, plan.seconds)
        within.require_answers(f"{plan.connections} clients")
        alone = driver.closed(1, plan.one_client_seconds).sent
        alone.require_answers("one client")
        rounds.requests_per_second.append(round(sent.request_rate(plan.seconds), 1))
        rounds.p50_ms.append(within.percentile_ms(50) or 0.0)
        rounds.p99_ms.append(within.percentile_ms(99) or 0.0)
        rounds.one_client_p50_ms.append(alone.percentile_ms(50) or 0.0)
        rounds.resident_bytes.append(server.memory_bytes())
