"""Bootstrap interval for the ratio of two noisy, autocorrelated measurements.

Successive latencies are not independent, and runs differ from each other more than the parts of one
run do. So blocks of successive samples are resampled, and with several runs a side, whole runs
first (a two-level cluster bootstrap: A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their
Application", 1997, § 3.8; blocks: H. R. Künsch, Annals of Statistics 17, 1989). Pure and seeded.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import Interval

RESAMPLES: Final = 1_000

Blocks = Sequence[NDArray[np.float64]]
"""Blocks of one run, in order."""
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
    """Return ``statistic(after) / statistic(before)`` and its bootstrap interval.

    Several runs are combined by the geometric mean of their statistics. A bootstrap of few clusters
    is too narrow by √(n / (n − 1)), so the interval is widened by that factor on a logarithmic
    scale. One run a side does not show the variance between runs; the caller has to say so.

    Raises:
        ValueError: a side has no samples.
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
    """Return the ratio and interval for interleaved runs: the nth runs of both sides are a pair.

    Machine effects common to both runs of a pair cancel in their ratio. Pairs are resampled whole.
    Variation within runs also shows between pairs, so the interval includes it.

    Raises:
        ValueError: the sides have different numbers of runs, or fewer than two.
    """
    if len(before) != len(after) or len(before) < 2:
        message = f"pairs need equal numbers of runs, at least 2: {len(before)} and {len(after)}"
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
    """Cut samples, in order, into at most ``count`` blocks of about equal length, none empty."""
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
