"""Verify that the graph in ONNX Runtime agrees with the Keras model."""

from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.card import Parity, TrainingRecord
from cifar10.errors import ExportError
from cifar10.predictor import Predictor
from export.batches import batch_size, predict

_OTHER_BATCH_SIZES: Final = (1, 7)
"""Additional batch sizes, which reveal a frozen batch dimension or mixing between images."""


@dataclass(frozen=True)
class ParityLimits:
    """Allowed differences between ONNX Runtime and Keras."""

    image_count: int = 1_000
    max_absolute_difference: float = 1e-4
    """Maximum absolute difference of probabilities, 0–1."""
    top1_agreement: float = 1.0
    """Minimum share of images with the same class and a difference within the limit.

    An image whose class may differ may also differ in its probability.
    """


def limits_for(record: TrainingRecord) -> ParityLimits:
    """Return the limits for the model that ``record`` describes.

    Measured on fitted networks: EfficientNets differ by up to 1.3e-3, all others by up to 5e-5. A
    network with random weights amplifies rounding and has low confidence (a ResNet50 differed by
    1.7e-4; an EfficientNetB3 by 2.1e-2 on a Xeon, with the same class for all of 1,000 images, and
    on an AMD EPYC, which sums in another order, by 1 for one of them). It may differ by 1e-3, an
    EfficientNet by 5e-2, and by any amount on one image in a hundred.
    """
    backbone = str(record.recipe_fields.get("architecture", {}).get("backbone", ""))
    deep = backbone.startswith("efficientnet")
    if record.weights is not None and record.weights.random:
        return ParityLimits(max_absolute_difference=5e-2 if deep else 1e-3, top1_agreement=0.99)
    difference = 2e-3 if deep else 1e-4
    return ParityLimits(max_absolute_difference=difference)


def check_parity(
    model: keras.Model,
    predictor: Predictor,
    images: NDArray[np.uint8],
    description: str,
    limits: ParityLimits = ParityLimits(),
) -> Parity:
    """Compare both on real images, at several batch sizes.

    Args:
        model: the Keras model.
        predictor: the exported graph.
        images: uint8 (N, 32, 32, 3), RGB; the first ``limits.image_count`` are used.
        description: description of the images, for the card.
        limits: allowed differences.

    Raises:
        ExportError: they differ by more than the limits; the message gives the numbers.
    """
    images = images[: limits.image_count]
    expected = np.asarray(model.predict(images, batch_size=batch_size(images), verbose=0))
    whole = predict(predictor, images)
    differences = _differences(whole, expected)
    for size in _OTHER_BATCH_SIZES:
        found = _differences(predictor.predict(images[:size]), expected[:size])
        differences[:size] = np.maximum(differences[:size], found)
    difference = float(differences.max())
    agreement = float(np.mean(whole.argmax(axis=1) == expected.argmax(axis=1)))
    close = float(np.mean(differences <= limits.max_absolute_difference))
    if min(close, agreement) < limits.top1_agreement:
        message = (
            f"the graph is not the Keras model: on {len(images):,} images ({description}), "
            f"probabilities differ by up to {difference:.3g}, by at most "
            f"{limits.max_absolute_difference:g} on {close:.2%} of them, and {agreement:.2%} of "
            f"the top-1 classes agree (at least {limits.top1_agreement:.2%} of both expected). "
            "Nothing was written."
        )
        raise ExportError(message)
    return Parity(description, len(images), difference, agreement)


def _differences(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest difference for each image."""
    largest: NDArray[np.float32] = np.abs(found - expected).max(axis=1)
    return np.where(np.isnan(largest), np.float32(np.inf), largest)  # NaN compares as no difference
