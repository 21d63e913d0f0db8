"""Trial type, sizes of the trials, and the data gathered while one runs."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import psutil  # type: ignore[import-untyped]

from bench.load.bodies import encode_png
from bench.load.client import NO_ANSWER, HttpClient
from bench.measure.progress import Progress, silent
from bench.rows.kinds.service import ChaosMeasurement
from bench.serving.process import SERVE, Server

DESIGNED_FAILURES: Final = frozenset((503, 504))
"""5xx statuses that the service returns by design: it is busy, or the deadline has passed."""
ADMINISTRATOR: Final = "chaos"
"""Token that allows a reload, on every server that a trial starts."""
_PICTURES: Final = 64


@dataclass(frozen=True)
class ChaosPlan:
    """Sizes and durations of the trials."""

    workers: int = 2
    kills: int = 5
    reloads: int = 5
    inputs: int = 100_000
    """Number of hostile inputs in process."""
    sent_inputs: int = 20_000
    """Maximum number of hostile requests over sockets; never more than ``inputs``."""
    soak_seconds: float = 1_800.0
    seed: int = 20_240_601
    large_images: int = 5
    large_seconds: float = 10.0
    large_rounds: int = 3
    attack_seconds: float = 12.0
    """Duration of one window, alone or under attack."""
    attack_rounds: int = 2
    settle_seconds: float = 60.0
    """Time for memory to recover after an attack."""
    ordinary_per_second: float = 50.0
    short: bool = False
    """Whether to limit every trial to this plan's durations; some otherwise take longer to be
    conclusive."""

    @classmethod
    def quick(cls, workers: int) -> "ChaosPlan":
        """Return a small plan that only checks that the trials work."""
        return cls(
            workers,
            kills=1,
            reloads=1,
            inputs=1_400,
            sent_inputs=700,
            soak_seconds=6.0,
            large_images=2,
            large_rounds=1,
            attack_seconds=2.0,
            attack_rounds=1,
            settle_seconds=10.0,
            short=True,
        )


class TrialSkippedError(Exception):
    """This machine or account cannot run the trial; the message says what is missing."""


@dataclass(frozen=True)
class Verdict:
    """Findings of a trial."""

    figures: Mapping[str, float]
    broken: Sequence[str]
    """Broken parts of the promise, each with its numbers; empty if the promise holds."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    promise: str | None = None
    """Promise of this run, if it differs from the trial's own because less was done."""


@dataclass
class TrialRun:
    """A running trial: its server, its plan, and the data gathered."""

    name: str
    store: Path
    """Copy of the model store, which the trial may damage."""
    model: str
    plan: ChaosPlan
    device: str = "auto"
    progress: Progress = silent
    statuses: Counter[int] = field(default_factory=Counter)
    """Number of responses by status; :data:`NO_ANSWER` if there was none."""
    memory: list[tuple[float, int]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    current: Server | None = None

    @property
    def server(self) -> Server:
        """Server under trial.

        Raises:
            RuntimeError: no server is running, which is a bug in the trial.
        """
        if self.current is None:
            message = f"the trial {self.name!r} has no server running"
            raise RuntimeError(message)
        return self.current

    @contextlib.contextmanager
    def serve(
        self,
        settings: Mapping[str, str] = MappingProxyType({}),
        *,
        command: Sequence[str] = SERVE,
        output: int | None = None,
    ) -> Iterator[Server]:
        """Start the server under trial, and stop it at the end.

        Args:
            output: file descriptor for its log; None: a file.
        """
        usual = {"CIFAR10_WORKERS": str(self.plan.workers), "CIFAR10_ADMIN_TOKEN": ADMINISTRATOR}
        self.current = Server(
            self.store,
            load=[self.model],
            device=self.device,
            command=command,
            settings={**usual, **settings},
            output=output,
        )
        try:
            with self.current as server:
                yield server
        finally:
            self.current = None

    def client(self, **more: Any) -> HttpClient:
        """Return a client that posts noise pictures, the same ones each time."""
        chance = np.random.default_rng(self.plan.seed)
        pixels = chance.integers(0, 256, (_PICTURES, 32, 32, 3), np.uint8)
        pictures = [encode_png(one) for one in pixels]
        return HttpClient(self.server.url, "/classify", pictures, **more)

    def weigh(self) -> int:
        """Record and return the current memory of the server's processes, in bytes; 0 once it has
        ended."""
        size = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            size = self.server.memory_bytes()
        self.memory.append((round(time.monotonic() - self.began, 1), size))
        return size

    def worker_ids(self) -> set[int]:
        """Return the process ids of the workers; none once the server has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return {one.pid for one in self.server.workers()}
        return set()

    @property
    def not_ok(self) -> int:
        """Number of requests with any other outcome than a 200."""
        return self.statuses.total() - self.statuses[200]

    def failures(self) -> int:
        """Number of requests without a response, or with a 5xx that is not by design."""
        return undesigned(self.statuses)


@dataclass(frozen=True)
class Trial:
    """One kind of fault or attack, and the service's promise under it."""

    name: str
    title: str
    promise: str
    run: Callable[[TrialRun], Coroutine[Any, Any, Verdict]]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Additional settings of the server."""
    starts_server: bool = False
    """Whether the trial starts its own servers with :meth:`TrialRun.serve`."""
    own_core: bool = False
    """Whether the load generator gets its own core, if there are two or more."""


def measurement_of(trial: Trial, run: TrialRun, verdict: Verdict) -> ChaosMeasurement:
    """Return the row of a finished trial."""
    return ChaosMeasurement(
        trial=trial.name,
        workers=run.plan.workers,
        seconds=round(time.monotonic() - run.began, 1),
        status_counts={
            str(status) if status != NO_ANSWER else "no answer": count
            for status, count in sorted(run.statuses.items())
        },
        figures={name: round(float(value), 4) for name, value in verdict.figures.items()},
        memory_bytes=tuple(run.memory),
        promise=verdict.promise or trial.promise,
        holds=not verdict.broken,
        title=trial.title,
        outcomes=dict(sorted(verdict.outcomes.items())),
        broken=tuple(verdict.broken),
    )


def undesigned(statuses: Mapping[int, int]) -> int:
    """Return the number of requests without a response, or with a 5xx other than 503 and 504."""
    return sum(
        count
        for status, count in statuses.items()
        if status == NO_ANSWER or (status >= 500 and status not in DESIGNED_FAILURES)
    )


def growth(memory: Sequence[tuple[float, int]]) -> float:
    """Return the growth of memory from the second quarter of the samples to the last; 0.05 is 5 %.

    With very few samples, the first sample replaces the second quarter.

    In the first quarter, workers copy pages that they shared with their parent process, and load
    the code for each kind of input.
    """
    sizes = [size for _, size in memory]
    quarter = max(1, len(sizes) // 4)
    early = sizes[quarter : 2 * quarter] or sizes[:1]
    return float(np.median(sizes[-quarter:]) / np.median(early)) - 1
