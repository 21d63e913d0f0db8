"""Row about how sure a model's answers are: its verdicts, and what its confidence is worth."""

from typing import ClassVar, Final, Literal

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement
from cifar10.reliability import Reliability
from cifar10.verdict import Verdict

COVERAGE_STEPS: Final = 20
"""Points of the coverage curve: the most confident 5 %, 10 % … 100 % of the answers."""


@dataclass(frozen=True, config=STRICT)
class VerdictCounts:
    """Number of images that were given one verdict."""

    of_classes: int
    """Number of images of the model's classes."""
    right: int
    """Number of these that were given the right class; 0 for the verdict ``none``."""
    of_others: int
    """Number of pictures of none of the model's classes, for which only ``none`` is right."""


@dataclass(frozen=True, config=STRICT)
class VerdictMeasurement(Measurement):
    """Verdicts on labelled images, in process, by the thresholds on the models' cards."""

    kind: ClassVar[str] = "verdicts"

    provider: str
    asked: str
    """The requested model: the model of the row, or ``auto``, whose large model it is."""
    small: tuple[str, str] | None
    """Name and digest of the small model of ``auto``."""
    images: Literal["test", "all"]
    """Whether the test images of a data set were used, or all of them."""
    dataset: str
    """Name of the data set."""
    chose_thresholds: int
    """Number of the images that chose the model's thresholds: 0 unless it validated on them."""
    counts: dict[Verdict, VerdictCounts]
    covered: tuple[int, ...]
    """Number of right answers among the most confident k of :data:`COVERAGE_STEPS` shares."""
    ordered_pairs: float
    """Pairs of an image of the classes and a picture of none of them in which the second is the
    more likely ``none``; ties count half."""
    reliability: Reliability
    """Confidence against accuracy, over the images whose class the model has a label for."""

    @property
    def key(self) -> str:
        """Key: execution provider, requested model, data set and its part."""
        return (
            f"provider={self.provider} asked={self.asked} dataset={self.dataset} "
            f"images={self.images}"
        )

    @property
    def of_classes(self) -> int:
        """Number of images of the model's classes."""
        return sum(one.of_classes for one in self.counts.values())

    @property
    def of_others(self) -> int:
        """Number of pictures of none of the model's classes."""
        return sum(one.of_others for one in self.counts.values())

    @property
    def total(self) -> int:
        """Number of images."""
        return self.of_classes + self.of_others

    @property
    def right(self) -> int:
        """Number of images of the model's classes that got their class."""
        return sum(one.right for one in self.counts.values())

    def share(self, verdict: Verdict) -> float | None:
        """Return how often images of the classes get ``verdict``, 0–1."""
        return _ratio(self.counts[verdict].of_classes, self.of_classes)

    def share_of_others(self, verdict: Verdict) -> float | None:
        """Return how often pictures of none of the classes get ``verdict``, 0–1."""
        return _ratio(self.counts[verdict].of_others, self.of_others)

    def given_and_right(self, verdict: Verdict) -> tuple[int, int]:
        """Return how often ``verdict`` was given, and how often it was right."""
        found = self.counts[verdict]
        right = found.right + (found.of_others if verdict == "none" else 0)
        return found.of_classes + found.of_others, right

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve of ``none`` against the model's classes, 0–1; None if the images
        are of one kind only.

        An image is the more likely ``none``, the more probable the label ``none``; for a model
        without that label, the less its confidence.
        """
        return _ratio(self.ordered_pairs, self.of_classes * self.of_others)

    @property
    def coverage(self) -> tuple[tuple[float, float], ...]:
        """Coverage curve: share of the answers, the most confident first, and how many of them are
        right, both 0–1."""
        return tuple(
            (step / COVERAGE_STEPS, right / max(1, covered_count(self.total, step)))
            for step, right in enumerate(self.covered, 1)
        )


def covered_count(total: int, step: int) -> int:
    """Return the number of answers up to a step of the coverage curve, rounded up."""
    return -(-total * step // COVERAGE_STEPS)


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
