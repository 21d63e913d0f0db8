"""Bootstrap interval for the ratio of two noisy, autocorrelated measurements.

Successive latencies are not independent, and runs differ from each other more than the parts of one
run do. So blocks of successive samples are resampled, and with several runs a side, whole runs
first (a two-level cluster bootstrap: A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their
Application", 1997, § 3.8; blocks: H. R. Künsch, Annals of Statistics 17, 1989). Pure and seeded.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import Interval

RESAMPLES: Final = 1_000

Blocks = Sequence[NDArray[np.float64]]
"""Blocks of one run, in order."""
Statistic = float | None
"""Percentile of the samples to compare (50 is the median), or None for their mean."""

_DRAWN_AT_ONCE: Final = 2_000_000
"""Maximum number of weighted samples in memory at a time."""


def ratio_interval(
    before: Sequence[Blocks],
    after: Sequence[Blocks],
    statistic: Statistic,
    *,
    confidence: float = 0.99,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Return the ratio of the statistic of ``after`` to that of ``before``, with its interval.

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
    found = _resampled(after, statistic, resamples, generator)
    found -= _resampled(before, statistic, resamples, generator)
    widen = max(_small_sample_factor(before), _small_sample_factor(after))
    return _widened(point, found, widen, confidence)


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
    return _widened(point, found, float(np.sqrt(logs.size / (logs.size - 1))), confidence)


def blocks_of(samples: NDArray[np.float64], count: int) -> list[NDArray[np.float64]]:
    """Cut samples, in order, into at most ``count`` blocks of about equal length, none empty."""
    return list(np.array_split(samples, min(count, max(1, samples.size))))


def _widened(
    point: float, found: NDArray[np.float64], widen: float, confidence: float
) -> tuple[float, Interval]:
    """Return the ratio and interval of resampled logarithms, with the point estimate inside."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(np.exp(point)), Interval(
        float(np.exp(point + min(0.0, low - point) * widen)),
        float(np.exp(point + max(0.0, high - point) * widen)),
    )


def _log_of(runs: Sequence[Blocks], statistic: Statistic) -> float:
    whole = (np.concatenate(list(run)) for run in runs)
    values = [run.mean() if statistic is None else np.percentile(run, statistic) for run in whole]
    return float(np.mean(np.log(values)))


def _resampled(
    runs: Sequence[Blocks], statistic: Statistic, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the logarithm of the statistic of each resample: float64 (resamples,)."""
    chosen = generator.integers(len(runs), size=(resamples, len(runs)))
    logs = np.empty(chosen.shape)
    for index, run in enumerate(runs):
        here = chosen == index
        draws = generator.integers(len(run), size=(int(here.sum()), len(run)))
        logs[here] = np.log(_of_draws(run, statistic, draws))
    return np.asarray(logs.mean(axis=1))


def _of_draws(run: Blocks, statistic: Statistic, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the statistic of the blocks in each row of ``draws``, joined: float64 (rows,)."""
    sizes = np.array([block.size for block in run])
    if statistic is None:
        sums = np.array([block.sum() for block in run])
        return np.asarray(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1))
    samples = np.concatenate(list(run))
    order = np.argsort(samples)
    samples, block_of_sample = samples[order], np.repeat(np.arange(len(run)), sizes)[order]
    parts = np.array_split(draws, 1 + draws.shape[0] * samples.size // _DRAWN_AT_ONCE)
    return np.concatenate(
        [_weighted_percentile(samples, block_of_sample, part, statistic) for part in parts]
    )


def _weighted_percentile(
    samples: NDArray[np.float64],
    block_of_sample: NDArray[np.int64],
    draws: NDArray[np.int64],
    percent: float,
) -> NDArray[np.float64]:
    """Return the percentile of each resample without building it.

    A sorted sample counts as often as its block was drawn, so running totals of the counts give
    every rank. The definition is NumPy's default, as in ``np.percentile``.
    """
    counts = np.zeros((len(draws), int(block_of_sample.max()) + 1), np.int64)
    np.add.at(counts, (np.arange(len(draws))[:, None], draws), 1)
    up_to = np.cumsum(counts[:, block_of_sample], axis=1)
    last = up_to[:, -1:] - 1
    rank = last * (percent / 100)
    below = np.floor(rank)
    low = samples[(up_to > below).argmax(axis=1)]
    high = samples[(up_to > np.minimum(below + 1, last)).argmax(axis=1)]
    return np.asarray(low + (high - low) * (rank - below)[:, 0])


def _small_sample_factor(runs: Sequence[Blocks]) -> float:
    clusters = len(runs) if len(runs) > 1 else len(runs[0])
    return float(np.sqrt(clusters / (clusters - 1))) if clusters > 1 else 1.0
