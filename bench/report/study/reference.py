"""The reference study's figures, as printed.

The study trained a small CNN and ImageNet backbones on CIFAR-10 at 32 × 32. Its test set was also
its validation set, so its test accuracies are biased upwards.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class StudyResult:
    """One model of the study; percentages as printed."""

    model: str
    test_percent: float | None
    """None if the study trained it and printed no figure."""
    rounded: bool = False
    """Whether the study rounded the figure."""
    train_percent: float | None = None
    gap_points: float | None = None
    """Train minus test accuracy in percentage points, as printed."""
    epochs: int | None = None
    recipe: str | None = None
    """Recipe of this project that repeats it."""


STUDY: Final = (
    StudyResult(
        "Simple CNN", 69.37, train_percent=86.8, gap_points=17.4, epochs=9, recipe="simple_cnn"
    ),
    StudyResult("MobileNetV2, frozen", 51.09, train_percent=91.8, recipe="mobilenetv2_frozen"),
    StudyResult("MobileNetV2, fine-tuned", None, recipe="mobilenetv2_finetuned"),
    StudyResult("ResNet50", 27.02, epochs=5, recipe="backbone_resnet50"),
    StudyResult("ResNet152", 26.31, epochs=5, recipe="backbone_resnet152"),
    StudyResult("ResNet101", 26.10, epochs=5, recipe="backbone_resnet101"),
    StudyResult("VGG16", 25, rounded=True, epochs=5, recipe="backbone_vgg16"),
    StudyResult("VGG19", 24, rounded=True, epochs=5, recipe="backbone_vgg19"),
    StudyResult("EfficientNetB0", 23, rounded=True, epochs=5, recipe="backbone_efficientnetb0"),
    StudyResult("EfficientNetB3", 22, rounded=True, epochs=5, recipe="backbone_efficientnetb3"),
    StudyResult("MobileNetV2", 21, rounded=True, epochs=5, recipe="backbone_mobilenetv2"),
    StudyResult("MobileNetV3Large", 20, rounded=True, epochs=5, recipe="backbone_mobilenetv3large"),
)
"""The study's twelve models, in the order of its tables."""
