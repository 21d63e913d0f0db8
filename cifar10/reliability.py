"""Reliability of a model's confidence: are 80 % of the answers given at 80 % right?

A row keeps only counts and sums per bin; every shown figure is computed from them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BIN_COUNT: Final = 15
"""Number of bins, as in Guo et al."""

_LEAST_PROBABILITY: Final = 1e-12


@dataclass(frozen=True)
class Reliability:
    """Predictions grouped by confidence into equal bins over 0–1, lowest first.

    Confidence is the probability of the predicted class.
    """

    counts: tuple[int, ...]
    """Number of predictions in each bin."""
    correct: tuple[int, ...]
    confidence_sums: tuple[float, ...]
    true_class_counts: tuple[int, ...]
    """Number of predictions whose probability of the *true* class lies in each bin."""
    log_loss: float
    """Mean negative logarithm of the true class's probability, in nats."""

    @property
    def accuracies(self) -> tuple[float | None, ...]:
        """Share of correct predictions in each bin, 0–1; None for an empty bin."""
        return _ratios(self.correct, self.counts)

    @property
    def confidences(self) -> tuple[float | None, ...]:
        """Mean confidence in each bin, 0–1; None for an empty bin."""
        return _ratios(self.confidence_sums, self.counts)

    @property
    def expected_calibration_error(self) -> float:
        """Expected calibration error, 0–1.

        It is the mean distance of confidence from accuracy, each bin weighted by its count.

        Source: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural
        Networks", ICML 2017 (arXiv 1706.04599), equation 3. It depends on the number of bins.

        Raises:
            ValueError: there are no predictions.
        """
        total = sum(self.counts)
        if total == 0:
            message = "there are no predictions"
            raise ValueError(message)
        pairs = zip(self.correct, self.confidence_sums, strict=True)
        return sum(abs(correct - confidence) for correct, confidence in pairs) / total

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy, as a share; positive values mean overconfidence."""
        return (sum(self.confidence_sums) - sum(self.correct)) / max(1, sum(self.counts))


def measure_reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.integer], bins: int = BIN_COUNT
) -> Reliability:
    """Group predictions into bins of confidence. A value on a border belongs to the lower bin.

    Args:
        probabilities: float32 (N, classes), rows summing to 1.
        labels: integer (N,), the true classes.
        bins: number of bins.
    """
    exact = probabilities.astype(np.float64)
    return group_by_confidence(
        exact.max(axis=1),
        exact.argmax(axis=1) == labels,
        exact[np.arange(len(labels)), labels.astype(np.int64)],
        bins,
    )


def group_by_confidence(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    true_class: NDArray[np.float64],
    bins: int = BIN_COUNT,
) -> Reliability:
    """Group predictions, of one model or several, into bins of confidence.

    Args:
        confidence: probability of the predicted class, (N,), 0–1.
        right: whether it is the true one, boolean (N,).
        true_class: probability of the true class, (N,), 0–1.
        bins: number of bins.
    """
    position = _bin(confidence, bins)
    sums = np.bincount(position, weights=confidence, minlength=bins)
    return Reliability(
        counts=_integers(np.bincount(position, minlength=bins)),
        correct=_integers(np.bincount(position[right], minlength=bins)),
        confidence_sums=tuple(round(float(total), 6) for total in sums),
        true_class_counts=_integers(np.bincount(_bin(true_class, bins), minlength=bins)),
        log_loss=float(-np.log(np.maximum(true_class, _LEAST_PROBABILITY)).mean()),
    )


def _bin(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)


def _integers(values: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _ratios(parts: tuple[float, ...], wholes: tuple[int, ...]) -> tuple[float | None, ...]:
    return tuple(part / whole if whole else None for part, whole in zip(parts, wholes, strict=True))
