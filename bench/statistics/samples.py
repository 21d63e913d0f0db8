"""Statistics of raw samples: pure functions, no clock, no files, no rounding.

Percentiles are used instead of means, because a mean latency hides both the typical and the slow
request. The definition is NumPy's default (linear interpolation between the two nearest ranks).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_RESAMPLES: Final = 1_000

_DRAWN_AT_ONCE: Final = 2_000_000
"""Maximum number of resampled values in memory at a time."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, in the unit of the samples."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Median over rounds, with the lowest and highest value."""

    median: float
    low: float
    high: float
    rounds: int


def percentile(samples: Sequence[float] | NDArray[Any], percent: float) -> float:
    """Return ``numpy.percentile`` as a float.

    Raises:
        ValueError: no samples, or ``percent`` outside 0–100.
    """
    return float(np.percentile(_vector(samples), percent))


def median(samples: Sequence[float] | NDArray[Any]) -> float:
    """Return the 50th percentile, in the samples' own unit.

    Raises:
        ValueError: no samples.
    """
    return percentile(samples, 50)


def interquartile_range(samples: Sequence[float] | NDArray[Any]) -> float:
    """Return the width of the middle half of the samples, in their own unit.

    Outliers do not affect it.

    Raises:
        ValueError: no samples.
    """
    return percentile(samples, 75) - percentile(samples, 25)


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return the median, lowest and highest value; None without values."""
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


def bootstrap_interval(
    samples: Sequence[float] | NDArray[Any],
    percent: float = 50,
    *,
    confidence: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile-bootstrap interval of a percentile; the same seed gives the same
    result.

    Source: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7
    (1979). It treats the samples as independent. Successive latencies are slightly dependent, so
    the true interval is somewhat wider.

    Raises:
        ValueError: no samples, or ``confidence`` not within 0–1.
    """
    values = _vector(samples)
    if not 0 < confidence < 1:
        message = f"confidence must be between 0 and 1, got {confidence}"
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // values.size)
    found = [
        np.percentile(generator.choice(values, size=(count, values.size)), percent, axis=1)
        for start in range(0, resamples, at_once)
        if (count := min(at_once, resamples - start))
    ]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return Interval(float(low), float(high))


def _vector(samples: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size == 0:
        message = "there are no samples"
        raise ValueError(message)
    return values
