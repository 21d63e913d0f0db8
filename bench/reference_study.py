"""The reference study's own figures, as it printed them.

The study trained a small CNN and ImageNet backbones on CIFAR-10 at 32 × 32. Its test set also
served as its validation set, so its test accuracies lean to the high side. Where it printed only
a rounded figure, ours says so.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class StudyResult:
    """One model of the study; percentages as printed."""

    model: str
    test_percent: float
    rounded: bool = False
    """The study gives the figure only roughly."""
    train_percent: float | None = None
    gap_points: float | None = None
    """Train minus test accuracy in percentage points, as printed."""
    epochs: int | None = None
    recipe: str | None = None
    """The recipe of this project that repeats it; None where there is none yet."""


STUDY: Final = (
    StudyResult(
        "Simple CNN", 69.37, train_percent=86.8, gap_points=17.4, epochs=9, recipe="simple_cnn"
    ),
    StudyResult("MobileNetV2, frozen", 51.09, train_percent=91.8),
    StudyResult("ResNet50", 27.02),
    StudyResult("ResNet152", 26.31),
    StudyResult("ResNet101", 26.10),
    StudyResult("VGG16", 25, rounded=True),
    StudyResult("VGG19", 24, rounded=True),
    StudyResult("EfficientNetB0", 23, rounded=True),
    StudyResult("EfficientNetB3", 22, rounded=True),
    StudyResult("MobileNetV2", 21, rounded=True),
    StudyResult("MobileNetV3Large", 20, rounded=True),
)
