"""The interval of a ratio of two noisy, autocorrelated measurements.

Successive latencies are not independent, and whole runs differ more than their parts do. So whole
blocks of successive samples are resampled, and, where a side has several runs, whole runs first
(a two-level cluster bootstrap: A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their
Application", 1997, § 3.8; blocks: H. R. Künsch, Annals of Statistics 17, 1989). Pure and seeded.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import Interval

RESAMPLES: Final = 1_000

Blocks = Sequence[NDArray[np.float64]]
"""One run: its samples in order, cut where they may be cut."""
Statistic = Callable[[NDArray[np.float64]], float]


def ratio_interval(
    before: Sequence[Blocks],
    after: Sequence[Blocks],
    statistic: Statistic,
    *,
    confidence: float = 0.99,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval]:
    """``statistic(after) / statistic(before)``, and its bootstrap interval.

    The statistic of several runs is the geometric mean of theirs. A bootstrap of few clusters is
    too narrow by √(n / (n − 1)), so the interval is widened by that, on a logarithmic scale; one
    run a side says nothing about how runs differ, and the caller has to say so.

    Raises:
        ValueError: a side without samples.
    """
    if not before or not after or any(not run for run in (*before, *after)):
        message = "each side needs at least one run with samples"
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    point = _log_of(after, statistic) - _log_of(before, statistic)
    found = np.array(
        [
            _resampled(after, statistic, generator) - _resampled(before, statistic, generator)
            for _ in range(resamples)
        ]
    )
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    widen = max(_small_sample_factor(before), _small_sample_factor(after))
    return float(np.exp(point)), Interval(
        float(np.exp(point + min(0.0, low - point) * widen)),
        float(np.exp(point + max(0.0, high - point) * widen)),
    )


def paired_ratio_interval(
    before: Sequence[Blocks],
    after: Sequence[Blocks],
    statistic: Statistic,
    *,
    confidence: float = 0.99,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval]:
    """As :func:`ratio_interval`, for runs taken in turn: the nth of each side are a pair.

    What the machine did to both runs of a pair cancels in their ratio. Pairs are resampled whole;
    what varies within a run varies between pairs too, and is in the interval with it.

    Raises:
        ValueError: not as many runs on each side, or fewer than two.
    """
    if len(before) != len(after) or len(before) < 2:
        message = f"pairs need as many runs a side, at least 2: {len(before)} and {len(after)}"
        raise ValueError(message)
    logs = np.array(
        [
            _log_of([right], statistic) - _log_of([left], statistic)
            for left, right in zip(before, after, strict=True)
        ]
    )
    generator = np.random.default_rng(seed)
    found = logs[generator.integers(logs.size, size=(resamples, logs.size))].mean(axis=1)
    point = float(logs.mean())
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    widen = float(np.sqrt(logs.size / (logs.size - 1)))
    return float(np.exp(point)), Interval(
        float(np.exp(point + (low - point) * widen)), float(np.exp(point + (high - point) * widen))
    )


def blocks_of(samples: NDArray[np.float64], count: int) -> list[NDArray[np.float64]]:
    """Samples in order, cut into at most ``count`` blocks of equal length, none empty."""
    return list(np.array_split(samples, min(count, max(1, samples.size))))


def _log_of(runs: Sequence[Blocks], statistic: Statistic) -> float:
    return float(np.mean([np.log(statistic(np.concatenate(list(run)))) for run in runs]))


def _resampled(
    runs: Sequence[Blocks], statistic: Statistic, generator: np.random.Generator
) -> float:
    chosen = generator.integers(len(runs), size=len(runs))
    return _log_of([_resampled_run(runs[index], generator) for index in chosen], statistic)


def _resampled_run(run: Blocks, generator: np.random.Generator) -> Blocks:
    return [run[index] for index in generator.integers(len(run), size=len(run))]


def _small_sample_factor(runs: Sequence[Blocks]) -> float:
    clusters = len(runs) if len(runs) > 1 else len(runs[0])
    return float(np.sqrt(clusters / (clusters - 1))) if clusters > 1 else 1.0
