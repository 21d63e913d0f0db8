"""Accuracy of a set of predictions, with its confidence interval.

Part of the kernel, so that a training record, a model card and a benchmark row mean the same by
"accuracy".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Z_95: Final = 1.959963984540054
"""97.5 % quantile of the standard normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on ``count`` images, as fractions 0–1, with its Wilson 95 % interval."""

    count: int
    correct: int
    accuracy: float
    low: float
    high: float
    per_class: dict[str, float]
    """Class name → fraction of the class's images classified correctly (recall)."""


def wilson_interval(correct: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, as fractions 0–1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927). Unlike the normal approximation it stays inside 0–1 and is never empty.

    Raises:
        ValueError: ``count`` is not positive, or ``correct`` not within 0–``count``.
    """
    if count <= 0 or not 0 <= correct <= count:
        message = f"need 0 <= correct <= count and count > 0, got {correct} of {count}"
        raise ValueError(message)
    share = correct / count
    z2 = z * z / count
    centre = (share + z2 / 2) / (1 + z2)
    half = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count)) / (1 + z2)
    # At 0 and 1, rounding could put the bound slightly past the share itself.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def measure_accuracy(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], names: Sequence[str]
) -> Accuracy:
    """Compare predicted class ids with true ones.

    Args:
        predicted: integer (N,), class ids.
        labels: integer (N,), class ids.
        names: names of the classes, in the order of their ids.

    Raises:
        ValueError: the two differ in shape, are not vectors, or are empty.
    """
    if predicted.shape != labels.shape or predicted.ndim != 1:
        message = f"expected vectors of equal length, got {predicted.shape} and {labels.shape}"
        raise ValueError(message)
    right = predicted == labels
    correct, count = int(right.sum()), int(right.size)
    low, high = wilson_interval(correct, count)
    images = np.bincount(labels, minlength=len(names))
    hits = np.bincount(labels[right], minlength=len(names))
    per_class = {name: int(hits[k]) / int(images[k]) for k, name in enumerate(names) if images[k]}
    return Accuracy(count, correct, correct / count, low, high, per_class)
