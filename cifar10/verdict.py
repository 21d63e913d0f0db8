"""Say how far an answer can be trusted: ``sure``, ``likely``, ``unsure`` or ``none``.

The export chooses the thresholds on images that were not used in training, and writes them to the
model's card (:class:`Calibration`). The server, the ``predict`` command and the benchmark all apply
them with this module.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from cifar10.accuracy import wilson_interval

Verdict = Literal["sure", "likely", "unsure", "none"]

VERDICTS: Final[tuple[Verdict, ...]] = ("sure", "likely", "unsure", "none")

REJECTION: Final = "none"
"""Label of a class that means "none of the others"."""

SURE_PRECISION: Final = 0.98
"""Least share of ``sure`` answers that are right, on the images that chose the threshold."""
SURE_BOUND: Final = 0.97
"""Least lower bound of that share's 95 % interval: a few hundred images prove less than thousands,
so they put the threshold higher."""
LIKELY_PRECISION: Final = 0.8
"""Least share of ``likely`` answers that are right."""
REJECTED_SHARE: Final = 0.005
"""Share of images of the known classes that a model without a rejection label may answer ``none``:
its least confident answers."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's confidence, the probability of its answer, and verdict
    thresholds."""

    temperature: float
    """Divisor of the logits before the softmax; 1 changes nothing. For a variant, the product of
    its source's temperature and its own."""
    error: float
    """Expected calibration error on the images below, 0–1."""
    images: str
    """The images that chose temperature and thresholds, in words."""
    image_count: int
    sure: float
    """Least confidence of a ``sure`` answer, 0–1; above 1 if none is reliable enough."""
    likely: float
    """Least confidence of a ``likely`` answer; at most :attr:`sure`."""
    rejected: float
    """Confidence below which an answer is ``none``; 0 for a model with a rejection label."""

    def on_top_of(self, source: "Calibration") -> "Calibration":
        """Return this calibration of a graph that was made from a calibrated one."""
        return replace(self, temperature=round(source.temperature * self.temperature, 4))

    def verdict(self, label: str, confidence: float) -> Verdict:
        """Return the verdict on the answer ``label``, given with ``confidence`` (0–1)."""
        if label == REJECTION or confidence < self.rejected:
            return "none"
        if confidence >= self.sure:
            return "sure"
        return "likely" if confidence >= self.likely else "unsure"


def choose_thresholds(
    confidences: NDArray[np.floating],
    right: NDArray[np.bool_],
    *,
    sure_precision: float = SURE_PRECISION,
    sure_bound: float = SURE_BOUND,
    likely_precision: float = LIKELY_PRECISION,
) -> tuple[float, float]:
    """Return the lowest thresholds of ``sure`` and ``likely`` that keep the promised precision.

    Args:
        confidences: confidence of each answer, (N,), 0–1; without answers that reject.
        right: whether each answer is right, boolean (N,).
        sure_precision: minimum share of right answers among the ``sure`` ones.
        sure_bound: minimum lower bound of that share's Wilson interval.
        likely_precision: minimum share of right answers among the ``likely`` ones.

    Returns:
        ``sure`` and ``likely``, float32 values. ``sure`` is 2, above every confidence, if not even
        the most confident answers are right often enough.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences = confidences[order].astype(np.float64)
    sorted_right = right[order]
    sure, taken = _lowest(sorted_confidences, sorted_right, sure_precision, sure_bound)
    likely, _ = _lowest(sorted_confidences[taken:], sorted_right[taken:], likely_precision, 0.0)
    return sure, min(sure, likely)


def _lowest(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], precision: float, bound: float
) -> tuple[float, int]:
    """Return the lowest threshold with at least ``precision`` and ``bound``, and the number of
    answers from it on; (2, 0) if there is none. Answers of equal confidence stay together."""
    correct = np.cumsum(right)
    is_precise = correct / np.arange(1, len(right) + 1) >= precision
    is_last = np.append(confidences[1:] < confidences[:-1], True)[: len(right)]
    for last in np.flatnonzero(is_precise & is_last)[::-1]:
        count = int(last) + 1
        if wilson_interval(int(correct[last]), count)[0] >= bound:
            return float(confidences[last]), count
    return 2.0, 0
