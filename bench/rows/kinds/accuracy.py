"""Rows about classification accuracy."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from bench.rows.packed import unpack_classes, unpack_hits
from bench.rows.row import STRICT, Measurement, provider_of
from bench.statistics.samples import Interval
from cifar10.accuracy import Z_95, Accuracy
from cifar10.paired import PairedTest, mcnemar
from cifar10.reliability import Reliability

SEVERITIES: Final = (1, 2, 3, 4, 5)
"""Severities of damage to images, mildest first."""


@dataclass(frozen=True, config=STRICT)
class AccuracyMeasurement(Measurement):
    """Top-1 accuracy on the test images through ONNX Runtime, in process."""

    kind: ClassVar[str] = "accuracy"

    provider: str
    top1: Accuracy
    confusion: tuple[tuple[int, ...], ...]
    """10 × 10 counts: row is the true class, column the predicted one."""
    card_accuracy: float | None
    """Test accuracy on the card (0–1); None without a card, or if it is for other images."""
    card_train_accuracy: float | None
    overfitting_gap: float | None
    """Train minus test accuracy on the card, as a fraction."""
    predictions: str = ""
    """Base64 of the predicted class ids, uint8 (N,), in the dataset's test order.

    Empty in rows older than this field, as is ``hits``.
    """
    hits: str = ""
    """Base64 of one bit per image in the same order: whether it was classified correctly."""
    reliability: Reliability | None = None
    """Calibration figures; None in rows older than this field."""

    @property
    def key(self) -> str:
        """Key: execution provider."""
        return f"provider={self.provider}"

    @cached_property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether each image was classified correctly, boolean (N,); None in older rows."""
        return unpack_hits(self.hits, self.top1.count) if self.hits else None

    @property
    def classes(self) -> NDArray[np.integer] | None:
        """Predicted class ids, unsigned integers (N,); None in older rows."""
        return unpack_classes(self.predictions) if self.predictions else None

    def against(self, other: "AccuracyMeasurement") -> PairedTest | None:
        """Return McNemar's test with this model as the first.

        None unless both rows have results for the same number of images. The caller ensures that
        the images are the same.
        """
        if self.top1.count != other.top1.count or self.right is None or other.right is None:
            return None
        return mcnemar(self.right, other.right)


@dataclass(frozen=True, config=STRICT)
class VerifyMeasurement(Measurement):
    """All test images through the running server, against ONNX Runtime in process."""

    kind: ClassVar[str] = "verify"

    device: str
    images: int
    answered: int
    """Number of images with a 200 response."""
    same_top1: int
    server_correct: int
    in_process_correct: int
    card_correct: int | None
    """Correct count on the card; None without a card, or if it is for other images."""
    differing: tuple[int, ...]
    """Indices of the first images whose classes differ, at most 20."""

    @property
    def key(self) -> str:
        """Key: device."""
        return f"device={self.device}"

    @property
    def execution_provider(self) -> str:
        """Execution provider behind the device."""
        return provider_of(self.device)

    @property
    def is_verified(self) -> bool:
        """Whether the server's classes equal those in process and its accuracy the card's."""
        return self.same_top1 == self.images and self.card_correct in (None, self.server_correct)


@dataclass(frozen=True, config=STRICT)
class RobustnessMeasurement(Measurement):
    """Top-1 accuracy on copies of test images damaged in one way, at five severities."""

    kind: ClassVar[str] = "robustness"

    provider: str
    corruption: str
    parameter: str
    """Parameter that the severity changes, with its unit."""
    strengths: tuple[float, ...]
    images: int
    seed: int
    """Seed of the image sample and of the random damage."""
    clean_correct: int
    """Number of correct answers on the same images, undamaged."""
    correct: tuple[int, ...]
    """Number of correct answers at each of :data:`SEVERITIES`."""

    @property
    def key(self) -> str:
        """Key: execution provider and corruption."""
        return f"provider={self.provider} corruption={self.corruption}"

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Accuracy at each severity, 0–1."""
        return tuple(correct / self.images for correct in self.correct)


def mean_corrupted_accuracy(found: Sequence[RobustnessMeasurement]) -> float | None:
    """Return the mean accuracy over all corruptions and severities, 0–1; None without rows."""
    shares = [share for one in found for share in one.accuracies]
    return sum(shares) / len(shares) if shares else None


@dataclass(frozen=True, config=STRICT)
class SendingMeasurement(Measurement):
    """Test images classified correctly when they are sent in one way."""

    kind: ClassVar[str] = "sending"

    provider: str
    way: str
    images: int
    seed: int
    """Seed of the image sample and of the random encoding."""
    clean_hits: str
    """Base64 of one bit per image: whether the tile itself was classified correctly."""
    hits: str
    """The same bits for the images as sent."""

    @property
    def key(self) -> str:
        """Key: execution provider and way of sending."""
        return f"provider={self.provider} way={self.way}"

    @cached_property
    def lost(self) -> PairedTest:
        """McNemar's test of the tiles against the images as sent; positive if sending loses
        accuracy."""
        return mcnemar(*self._hits)

    def lost_more_than(self, other: "SendingMeasurement") -> tuple[float, Interval] | None:
        """Return how many more points this model loses than ``other``, with the 95 % interval.

        None unless both were measured on the same images.

        Each image is worth −2 to 2: what this model lost on it minus what the other did. The
        interval is that of a mean (central limit).
        """
        if (self.way, self.images, self.seed) != (other.way, other.images, other.seed):
            return None
        (clean, sent), (others_clean, others_sent) = self._hits, other._hits
        losses = clean.astype(int) - sent.astype(int)
        others = others_clean.astype(int) - others_sent.astype(int)
        differences = (losses - others) * 100.0
        mean = float(differences.mean())
        half = Z_95 * float(differences.std(ddof=1)) / math.sqrt(self.images)
        return mean, Interval(mean - half, mean + half)

    @property
    def _hits(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        clean, sent = (unpack_hits(text, self.images) for text in (self.clean_hits, self.hits))
        return clean, sent
