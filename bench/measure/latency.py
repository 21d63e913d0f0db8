"""In-process latency and throughput of several models, measured in interleaved rounds.

Machines are noisy and drift, so two equal models measured one after the other would differ. Each
round therefore runs a block of calls for every model at every batch size (A B A B), so that a
temporary slowdown affects all models. Every model gets the same images in the same order, and
different images at each call, because the cost of an early-exit graph depends on the image.

The loop is closed, with one caller. Each block begins with unrecorded calls, because the other
models have evicted the caches. Garbage collection is off while a block runs. A call's time is the
duration of ``predict``, from pixels to probabilities, including copies to and from a GPU.
"""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.measure.progress import Progress, silent
from bench.rows.kinds.speed import LatencyMeasurement, ThroughputMeasurement

logger = logging.getLogger(__name__)

BATCH_SIZES: Final = (1, 8, 32, 128)

RESOLUTION_NS: Final = 100
"""Resolution of stored samples: finer than the clock's noise, and short in a file."""

Clock = Callable[[], int]
"""Monotonic clock in nanoseconds, such as ``time.perf_counter_ns``."""


class Executor(Protocol):
    """Measured model: :class:`cifar10.predictor.Predictor`, or a fake in tests."""

    @property
    def provider(self) -> str:
        """Name of the execution provider that runs the model."""

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify uint8 (N, height, width, 3) images; return float32 (N, classes)."""


@dataclass(frozen=True)
class LatencyPlan:
    """Sizes of the measurement.

    A block ends after ``block_calls`` or ``block_ns``, whichever comes first, but not before
    ``block_calls_least``.
    """

    batch_sizes: tuple[int, ...] = BATCH_SIZES
    rounds: int = 10
    warm_up_calls: int = 10
    """Calls before the first round, for each model and batch size."""
    block_warm_up_calls: int = 2
    """Unrecorded calls at the start of every block."""
    block_calls: int = 100
    block_calls_least: int = 3
    block_ns: int = 300_000_000
    call_ns_most: int | None = None
    """Maximum call time: slower batch sizes are left out, except the smallest; None: no limit."""
    threads: int = 1
    """Intra-op threads of the predictors, for the rows."""


QUICK_PLAN: Final = LatencyPlan(rounds=2, warm_up_calls=3, block_calls=20, block_ns=100_000_000)


@dataclass
class _Cell:
    """Samples of one model at one batch size so far."""

    provider: str
    batch_size: int
    calls: int = 0
    """Number of all calls, including the warm-up."""
    warm_up_calls: int = 0
    samples_ns: list[int] = field(default_factory=list)
    block_images: list[int] = field(default_factory=list)
    block_ns: list[int] = field(default_factory=list)


class LatencySession:
    """Interleaved measurement of several models.

    Results can be read at any time, so an interruption loses only the current block.

    Args:
        images: uint8 (M, height, width, 3), M at least the largest batch size: real images. The
            calls take one batch after the other, then start again from the first.
        clock: returns nanoseconds.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        images: NDArray[np.uint8],
        plan: LatencyPlan = LatencyPlan(),
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        if len(images) < max(plan.batch_sizes):
            message = f"{len(images)} images are too few for batches of {max(plan.batch_sizes)}"
            raise ValueError(message)
        self._executors = dict(executors)
        self._batches = {
            size: [
                np.ascontiguousarray(images[start : start + size])
                for start in range(0, len(images) - size + 1, size)
            ]
            for size in sorted(plan.batch_sizes)
        }
        self._plan = plan
        self._clock = clock
        self._cells: dict[tuple[str, int], _Cell] = {}
        self._too_slow: set[tuple[str, int]] = set()
        self.failures: dict[str, Exception] = {}
        """Exception that stopped a model's measurement, by model name. The other models continue.
       """

    def run(self, progress: Progress = silent) -> None:
        """Warm up and measure. A model that raises is added to :attr:`failures` and left out."""
        steps = (self._plan.rounds + 1) * len(self._batches) * len(self._executors)
        done = 0
        for round_number in range(self._plan.rounds + 1):
            what = f"latency, round {round_number}" if round_number else "latency, warm-up"
            for size in self._batches:
                for name in self._executors:
                    progress(f"{what}: {name}, batch {size}", done, steps)
                    done += 1
                    if name not in self.failures and (name, size) not in self._too_slow:
                        self._step(name, size, warm_up=round_number == 0)
        progress("latency", steps, steps)

    def latencies(self, name: str) -> list[LatencyMeasurement]:
        """Return a model's latencies so far, one measurement per batch size."""
        return [
            LatencyMeasurement(
                provider=cell.provider,
                threads=self._plan.threads,
                batch_size=cell.batch_size,
                warm_up_calls=cell.warm_up_calls,
                rounds=len(cell.block_ns),
                samples_ns=tuple(_rounded(sample) for sample in cell.samples_ns),
                batches=min(cell.calls, len(self._batches[cell.batch_size])),
            )
            for cell in self._measured(name)
        ]

    def throughputs(self, name: str) -> list[ThroughputMeasurement]:
        """Return a model's throughputs so far, one measurement per batch size."""
        return [
            ThroughputMeasurement(
                provider=cell.provider,
                threads=self._plan.threads,
                batch_size=cell.batch_size,
                block_images=tuple(cell.block_images),
                block_ns=tuple(cell.block_ns),
            )
            for cell in self._measured(name)
        ]

    def _measured(self, name: str) -> list[_Cell]:
        cells = (self._cells.get((name, size)) for size in self._batches)
        return [cell for cell in cells if cell is not None and cell.samples_ns]

    def _step(self, name: str, size: int, *, warm_up: bool) -> None:
        executor = self._executors[name]
        try:
            if warm_up:
                cell = self._cells[name, size] = _Cell(executor.provider, size)
                call_ns = self._warm_up(executor, cell)
                most = self._plan.call_ns_most
                if most is not None and call_ns > most and size != min(self._batches):
                    self._too_slow |= {(name, other) for other in self._batches if other >= size}
            else:
                self._block(executor, self._cells[name, size])
        except Exception as error:  # any exception of a runtime becomes that model's failure row
            logger.warning("%s at batch %d: %s", name, size, error)
            self.failures[name] = error

    def _next(self, cell: _Cell) -> NDArray[np.uint8]:
        batches = self._batches[cell.batch_size]
        cell.calls += 1
        return batches[(cell.calls - 1) % len(batches)]

    def _warm_up(self, executor: Executor, cell: _Cell) -> int:
        """Call at least once, then until the plan's calls or one block's time are used up.

        Returns:
            Duration of the last call in ns.
        """
        start = before = self._clock()
        while True:
            executor.predict(self._next(cell))
            cell.warm_up_calls += 1
            now = self._clock()
            used, call_ns, before = now - start, now - before, now
            if cell.warm_up_calls >= self._plan.warm_up_calls or used >= self._plan.block_ns:
                return call_ns

    def _block(self, executor: Executor, cell: _Cell) -> None:
        plan, clock = self._plan, self._clock
        predict = executor.predict
        samples: list[int] = []
        for _ in range(plan.block_warm_up_calls):
            predict(self._next(cell))
        collecting = gc.isenabled()
        gc.disable()
        try:
            block_start = clock()
            while True:
                batch = self._next(cell)
                start = clock()
                predict(batch)
                end = clock()
                samples.append(end - start)
                used = end - block_start
                if len(samples) >= plan.block_calls or (
                    used >= plan.block_ns and len(samples) >= plan.block_calls_least
                ):
                    break
        finally:
            if collecting:
                gc.enable()
        cell.warm_up_calls += plan.block_warm_up_calls
        cell.samples_ns += samples
        cell.block_images.append(len(samples) * cell.batch_size)
        cell.block_ns.append(used)


def _rounded(sample_ns: int) -> int:
    return round(sample_ns / RESOLUTION_NS) * RESOLUTION_NS
