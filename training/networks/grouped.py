"""Build ``photo``: MobileNetV2 with its ImageNet classifier, grouped into CIFAR-10's classes.

The network is as published, and so is its classifier of 1,000 classes. What is added has few
numbers: which of the 1,000 belong to which of the ten, a linear classifier of the same features
that was fitted on enlarged CIFAR-10 images, and how both are weighed against "none of the ten".
"""

from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.data.photographs import PHOTO_LABELS, RESOLUTION
from cifar10.labels import CLASS_COUNT, LABELS
from cifar10.verdict import REJECTION

_IMAGENET_CLASSES: Final = 1_000
_LEAST: Final = 1e-6
"""Added to probabilities before their logarithm."""


def _ranges(*bounds: int | tuple[int, int]) -> tuple[int, ...]:
    found: list[int] = []
    for bound in bounds:
        first, last = bound if isinstance(bound, tuple) else (bound, bound)
        found += range(first, last + 1)
    return tuple(found)


GROUPS: Final[dict[str, tuple[int, ...]]] = {
    "airplane": (404, 895),
    "automobile": (407, 436, 468, 511, 609, 627, 656, 661, 734, 751, 817),
    "bird": _ranges((7, 24), (80, 100), (127, 146)),
    "cat": _ranges((281, 285)),
    "deer": _ranges((351, 353)),
    "dog": _ranges((151, 268)),
    "frog": _ranges((30, 32)),
    "horse": (339,),
    "ship": (403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 913, 914),
    "truck": (555, 569, 675, 864, 867),
}
"""Class → ids of ImageNet classes, in the order of Keras' models. ImageNet has no deer, so
antelopes stand for them; of horses it has only the sorrel."""


@dataclass(frozen=True, kw_only=True)
class GroupedClassifier:
    """Weights by which the network's outputs are combined.

    They were chosen on 579 photographs of the ten classes and of none, so accuracies on those are
    slightly optimistic (docs/photographs.md).
    """

    softening: float = 1.5
    """Temperature of ImageNet's probabilities before they are grouped."""
    head_share: float = 0.8
    """Weight of the logits of the classifier fitted on CIFAR-10 images."""
    head_images: int = 8_000
    head_decay: float = 0.1
    """Weight decay (L2) of that classifier, on standardised features. Strong: it is fitted on
    blurred images and used on sharp ones."""
    sharpness: float = 1.5
    """Multiplies the ten logits."""
    rejection_slope: float = 3.85
    rejection_offset: float = 2.63
    """``slope × evidence + offset`` is the logit of "one of the ten" against "none"."""
    rejection_head_share: float = 0.3
    """Weight of the fitted classifier in the evidence."""


def grouped_model(
    classifier: GroupedClassifier,
    imagenet: tuple[NDArray[np.float32], NDArray[np.float32]],
    name: str,
) -> keras.Model:
    """Return the whole model: uint8 (N, 224, 224, 3), RGB → float32 (N, 11), probabilities.

    The weights of the network are random, those of the fitted classifier zero.

    Args:
        classifier: how outputs are weighed.
        imagenet: kernel (1280, 1000) and bias (1000,) of the published classifier.
        name: the model's name.
    """
    ops = keras.ops
    image = keras.Input((RESOLUTION, RESOLUTION, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)
    base = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_tensor=x, input_shape=(RESOLUTION, RESOLUTION, 3)
    )
    features = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    imagenet_layer = keras.layers.Dense(_IMAGENET_CLASSES, name="imagenet")
    logits = imagenet_layer(features)
    head = keras.layers.Dense(CLASS_COUNT, name="head", kernel_initializer="zeros")(features)

    probabilities = ops.softmax(logits / classifier.softening, axis=-1)
    means_layer = keras.layers.Dense(CLASS_COUNT, use_bias=False, trainable=False, name="means")
    means = means_layer(probabilities)
    ten = classifier.softening * ops.log(means + _LEAST) + classifier.head_share * head
    ten = ops.log_softmax(classifier.sharpness * ten, axis=-1)
    inside = ops.sum(means * _group_sizes(), axis=-1, keepdims=True)
    evidence = classifier.softening * (ops.log(inside + _LEAST) - ops.log(1 + _LEAST - inside))
    largest = ops.max(head, axis=-1, keepdims=True)
    strength = ops.log(ops.sum(ops.exp(head - largest), axis=-1, keepdims=True)) + largest
    evidence = evidence + classifier.rejection_head_share * strength
    accepted = classifier.rejection_slope * evidence + classifier.rejection_offset
    ten = ten + accepted
    place = PHOTO_LABELS.index(REJECTION)
    eleven = ops.concatenate([ten[:, :place], ops.zeros_like(accepted), ten[:, place:]], axis=-1)
    output = keras.layers.Softmax(name="probabilities", dtype="float32")(eleven)
    model = keras.Model(image, output, name=name)
    imagenet_layer.set_weights(list(imagenet))
    # A plain layer and its weights, not a layer of our own: the export loads the file without
    # this module.
    means_layer.set_weights([_group_means()])
    return model


def _group_means() -> NDArray[np.float32]:
    """Return the matrix that takes each group's mean, (1000, 10)."""
    matrix = np.zeros((_IMAGENET_CLASSES, CLASS_COUNT), np.float32)
    for place, label in enumerate(LABELS):
        members = GROUPS[label]
        matrix[list(members), place] = 1 / len(members)
    return matrix


def _group_sizes() -> NDArray[np.float32]:
    return np.array([[len(GROUPS[label]) for label in LABELS]], np.float32)
