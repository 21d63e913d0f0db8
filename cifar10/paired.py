"""Two models on the same images: is one really more accurate?

Their errors are on the same images, so their intervals are not independent; comparing those wastes
most of what is known. Only the images on which the two disagree say anything.

In the kernel because an exporter that accepts a variant and a benchmark that compares models must
mean the same by "more accurate".
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from cifar10.accuracy import Z_95

SIGNIFICANT: Final = 0.05
"""Below this probability a difference is called real."""

EXACT_UP_TO: Final = 1_000
"""Images that differ, up to which the binomial is summed exactly."""


@dataclass(frozen=True)
class PairedTest:
    """What the same images say of two models."""

    images: int
    only_first: int
    """Images that only the first gets right."""
    only_second: int
    p_value: float
    """Two-sided: how likely a split at least as uneven is, were both equally accurate."""
    method: Literal["exact binomial", "chi-squared, continuity-corrected"]
    difference: float
    """Accuracy of the first minus that of the second, as a share."""
    low: float
    """Lower end of the interval of ``difference``, as a share."""
    high: float

    @property
    def is_real(self) -> bool:
        """Whether the difference is significant at :data:`SIGNIFICANT`."""
        return self.p_value < SIGNIFICANT


def mcnemar(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], z: float = Z_95
) -> PairedTest:
    """McNemar's test on per-image hits, boolean (N,) each, in the same order.

    Sources: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947); the continuity correction is A. L.
    Edwards', Psychometrika 13 (1948). The interval is Wald's for paired proportions (A. Agresti,
    "Categorical Data Analysis", section 11.1), two-sided 95 % unless another ``z`` is given.

    Raises:
        ValueError: the two differ in length, or hold nothing.
    """
    if first_right.shape != second_right.shape or first_right.ndim != 1 or not first_right.size:
        message = (
            "expected hits on the same images, got vectors of shape "
            f"{first_right.shape} and {second_right.shape}"
        )
        raise ValueError(message)
    images = int(first_right.size)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    differing = only_first + only_second
    exact = differing <= EXACT_UP_TO
    share = (only_first - only_second) / images
    half = z * math.sqrt(differing - (only_first - only_second) ** 2 / images) / images
    return PairedTest(
        images,
        only_first,
        only_second,
        (_exact if exact else _approximate)(only_first, only_second),
        "exact binomial" if exact else "chi-squared, continuity-corrected",
        share,
        share - half,
        share + half,
    )


def _exact(first: int, second: int) -> float:
    """Two-sided binomial probability at one half: twice the smaller tail, at most 1."""
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    return min(1.0, float(2 * tail / (1 << total)))


def _approximate(first: int, second: int) -> float:
    statistic = max(0, abs(first - second) - 1) ** 2 / (first + second)
    return math.erfc(math.sqrt(statistic / 2))
