"""Build a :class:`~training.recipes.schema.ResidualNetwork`, in plain Keras layers."""

from typing import Any, Final

import keras

from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE
from training.networks.normalization import FusedBatchNormalization
from training.networks.views import both_views, mean_of_views
from training.recipes.schema import ResidualNetwork

_MOMENTUM: Final = 0.9
_EPSILON: Final = 1e-5


def residual_network(
    architecture: ResidualNetwork, name: str, *, for_training: bool = False
) -> keras.Model:
    """The untrained model: uint8 (N, 32, 32, 3) in, float32 (N, 10) probabilities out.

    Args:
        architecture: what to build.
        name: the model's.
        for_training: with :class:`FusedBatchNormalization`, whose weights are those of Keras' own,
            and never ``mirrored``.
    """
    normalization = FusedBatchNormalization if for_training else keras.layers.BatchNormalization
    mirrored = architecture.mirrored and not for_training

    def convolution(x: Any, filters: int, size: int, strides: int, label: str) -> Any:
        x = keras.layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{label}_convolution",
        )(x)
        return normalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{label}_normalization")(x)

    def block(x: Any, filters: int, strides: int, label: str) -> Any:
        y = convolution(x, filters, 3, strides, f"{label}_1")
        y = keras.layers.ReLU(name=f"{label}_1_relu")(y)
        y = convolution(y, filters, 3, 1, f"{label}_2")
        if strides != 1:
            x = keras.layers.AveragePooling2D(strides, name=f"{label}_shortcut_pool")(x)
        if strides != 1 or x.shape[-1] != filters:
            x = convolution(x, filters, 1, 1, f"{label}_shortcut")
        x = keras.layers.Add(name=f"{label}_add")([y, x])
        return keras.layers.ReLU(name=f"{label}_relu")(x)

    image = keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")
    seen = both_views(image, architecture.mirror_shift) if mirrored else image
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(seen)  # casts first
    x = convolution(x, architecture.widths[0], 3, 1, "stem")
    x = keras.layers.ReLU(name="stem_relu")(x)
    for stage, (filters, blocks) in enumerate(
        zip(architecture.widths, architecture.blocks, strict=True), 1
    ):
        for number in range(1, blocks + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            x = block(x, filters, strides, f"stage{stage}_block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if mirrored:
        x = mean_of_views(x)
    # float32 even where a mixed-precision policy is set: probabilities are the contract.
    x = keras.layers.Dense(
        CLASS_COUNT, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(image, x, name=name)
