"""Statistics of raw samples: pure functions, no clock, no files, no rounding.

Percentiles, not means: the mean of a latency hides both the usual request and the slow one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_RESAMPLES: Final = 1_000


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, in the unit of the samples."""

    low: float
    high: float


def percentile(samples: Sequence[float] | NDArray[Any], percent: float) -> float:
    """The value below which ``percent`` per cent of the samples lie, in their own unit.

    Linear interpolation between the two nearest ranks: R. J. Hyndman and Y. Fan, "Sample Quantiles
    in Statistical Packages", The American Statistician 50 (1996), definition 7, which is also
    NumPy's default.

    Raises:
        ValueError: no samples, or ``percent`` outside 0–100.
    """
    values = np.sort(_vector(samples))
    if not 0 <= percent <= 100:
        message = f"percent must be within 0–100, got {percent}"
        raise ValueError(message)
    rank = (values.size - 1) * percent / 100
    below = int(rank)
    above = min(below + 1, values.size - 1)
    low, high = float(values[below]), float(values[above])
    return min(high, low + (high - low) * (rank - below))


def median(samples: Sequence[float] | NDArray[Any]) -> float:
    """The 50th percentile, in the samples' own unit.

    Raises:
        ValueError: no samples.
    """
    return percentile(samples, 50)


def interquartile_range(samples: Sequence[float] | NDArray[Any]) -> float:
    """The width of the middle half of the samples, in their own unit: a spread outliers cannot
    inflate.

    Raises:
        ValueError: no samples.
    """
    return percentile(samples, 75) - percentile(samples, 25)


def bootstrap_interval(
    samples: Sequence[float] | NDArray[Any],
    statistic: Callable[[NDArray[np.float64]], float] = median,
    *,
    confidence: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The percentile-bootstrap interval of ``statistic``: the same answer for the same seed.

    Source: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7
    (1979). It treats the samples as independent; successive latencies are not quite, so the true
    interval is somewhat wider.

    Raises:
        ValueError: no samples, or ``confidence`` not within 0–1.
    """
    values = _vector(samples)
    if not 0 < confidence < 1:
        message = f"confidence must be between 0 and 1, got {confidence}"
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    found = [
        statistic(generator.choice(values, size=values.size, replace=True))
        for _ in range(resamples)
    ]
    tail = 100 * (1 - confidence) / 2
    return Interval(percentile(found, tail), percentile(found, 100 - tail))


def _vector(samples: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size == 0:
        message = "there are no samples"
        raise ValueError(message)
    return values
