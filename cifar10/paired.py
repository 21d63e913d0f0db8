"""Paired comparison: test whether one of two models is more accurate on the same images.

Both models see the same images, so their accuracy intervals are not independent, and comparing the
intervals wastes most of the information. Only the images on which the models disagree are
informative.

Part of the kernel, so that the exporter, which accepts variants, and the benchmark, which compares
models, mean the same by "more accurate".
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from cifar10.accuracy import Z_95

SIGNIFICANT: Final = 0.05
"""Significance level: a difference with a p-value below it is called real."""

EXACT_UP_TO: Final = 1_000
"""Number of disagreements up to which the binomial test is exact."""


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired test of two models on the same images."""

    images: int
    only_first: int
    """Number of images that only the first classifies correctly."""
    only_second: int
    p_value: float
    """Two-sided probability of a split at least as uneven if both were equally accurate."""
    method: Literal["exact binomial", "chi-squared, continuity-corrected"]
    difference: float
    """Accuracy of the first minus that of the second, as a fraction."""
    low: float
    """Lower end of the interval of ``difference``, as a fraction."""
    high: float

    @property
    def is_real(self) -> bool:
        """Whether the difference is significant at :data:`SIGNIFICANT`."""
        return self.p_value < SIGNIFICANT


def mcnemar(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], z: float = Z_95
) -> PairedTest:
    """Return McNemar's test on correctness per image, boolean (N,) each, in the same order.

    Sources: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947); the continuity correction is A. L.
    Edwards', Psychometrika 13 (1948). The interval is Wald's for paired proportions (A. Agresti,
    "Categorical Data Analysis", section 11.1), two-sided 95 % unless another ``z`` is given.

    Raises:
        ValueError: the two differ in length or are empty.
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
    """Return the two-sided p-value of a binomial test at one half: twice the smaller tail, at most
    1."""
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    return min(1.0, float(2 * tail / (1 << total)))


def _approximate(first: int, second: int) -> float:
    statistic = max(0, abs(first - second) - 1) ** 2 / (first + second)
    return math.erfc(math.sqrt(statistic / 2))
