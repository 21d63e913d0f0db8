"""Build a :class:`~training.recipes.schema.WhitenedNetwork`."""

from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.networks.normalization import QuickShiftNormalization
from training.networks.patches import patch_axes
from training.networks.task import Task
from training.networks.views import both_views, mean_of_views
from training.recipes.schema import WhitenedNetwork

_PATCH: Final = 2
_WHITENING: Final = "whitening"
_LEAST_VARIANCE: Final = 1.25e-4
"""Constant added to each variance before dividing by it. The paper's code has 5e-4 for standardised
pixels, whose variance is about four times that of pixels scaled to -1–1."""

_MOMENTUM: Final = 0.6
_EPSILON: Final = 1e-5
_SHIFT_FACTOR: Final = 8.0

_LOGIT_SCALE: Final = 1 / 9
_ROOT_OF_2: Final = 2**0.5


@keras.saving.register_keras_serializable(package="training")
class PartialIdentity(keras.initializers.Initializer):  # type: ignore[misc]
    """Convolution kernels whose first output channels repeat the input ones.

    The others are drawn evenly from ±1/√(inputs of a filter).
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return the kernel, (height, width, inputs, outputs)."""
        height, width, inputs, outputs = shape
        limit = float(height * width * inputs) ** -0.5
        drawn = keras.random.uniform(shape, -limit, limit, dtype=dtype)
        repeated = min(inputs, outputs)
        identity = np.zeros((height, width, inputs, repeated), np.float32)
        identity[height // 2, width // 2, range(repeated), range(repeated)] = 1
        return keras.ops.concatenate(
            [keras.ops.cast(identity, drawn.dtype), drawn[..., repeated:]], axis=-1
        )


def whitened_network(
    architecture: WhitenedNetwork, name: str, task: Task, *, for_training: bool = False
) -> keras.Model:
    """Return the untrained model: uint8 (N, H, W, 3) in, float32 (N, L) probabilities out.

    Args:
        architecture: the network to build.
        name: name of the model.
        task: image size and number of classes.
        for_training: with :class:`QuickShiftNormalization`, and never ``mirrored``; its weights go
            into the plain form by ``training.networks.normalization.plain_weights``.
    """
    mirrored = architecture.mirrored and not for_training

    def normalization(x: Any, label: str) -> Any:
        label = f"{label}_normalization"
        if for_training:
            layer = QuickShiftNormalization(
                _SHIFT_FACTOR, momentum=_MOMENTUM, epsilon=_EPSILON, name=label
            )
        else:
            layer = keras.layers.BatchNormalization(
                scale=False, momentum=_MOMENTUM, epsilon=_EPSILON, name=label
            )
        return layer(x)

    def convolution(x: Any, filters: int, label: str) -> Any:
        return keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            # The finished model must not contain our own objects: the export loads it without them.
            kernel_initializer=PartialIdentity() if for_training else "glorot_uniform",
            name=f"{label}_convolution",
        )(x)

    def activation(x: Any, label: str) -> Any:
        if for_training:
            return keras.layers.Activation("gelu", name=f"{label}_gelu")(x)
        # tf2onnx converts Erf, but not the Erfc that Keras' own GELU becomes on TensorFlow.
        return x * (keras.ops.erf(x / _ROOT_OF_2) + 1.0) * 0.5

    shape = (None, None, 3) if for_training else task.image_shape
    image = keras.Input(shape, dtype="uint8", name="image")
    seen = both_views(image, architecture.mirror_shift) if mirrored else image
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(seen)  # casts first
    x = keras.layers.Conv2D(
        2 * 3 * _PATCH**2, _PATCH, use_bias=False, trainable=False, name=_WHITENING
    )(x)
    x = activation(normalization(x, _WHITENING), _WHITENING)
    for block, filters in enumerate(architecture.widths, 1):
        x = convolution(x, filters, f"block{block}_1")
        x = keras.layers.MaxPooling2D(name=f"block{block}_pool")(x)
        x = activation(normalization(x, f"block{block}_1"), f"block{block}_1")
        x = convolution(x, filters, f"block{block}_2")
        x = activation(normalization(x, f"block{block}_2"), f"block{block}_2")
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    if mirrored:
        x = mean_of_views(x)
    x = keras.layers.Rescaling(_LOGIT_SCALE, name="logit_scale")(x)
    # float32 even where a mixed-precision policy is set: probabilities are the contract.
    x = keras.layers.Dense(
        task.class_count, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(image, x, name=name)


def set_whitening(model: keras.Model, images: NDArray[np.uint8]) -> None:
    """Make the first convolution whiten the patches of ``images``, uint8 (N, H, W, 3).

    Its filters are the eigenvectors of the patches' second moments, each divided by the root of its
    eigenvalue, and the negatives of them all.
    """
    variances, vectors = patch_axes(images, _PATCH)
    filters = vectors / np.sqrt(variances + _LEAST_VARIANCE)
    kernel = np.concatenate([filters, -filters], axis=1).reshape(_PATCH, _PATCH, 3, -1)
    model.get_layer(_WHITENING).set_weights([kernel.astype(np.float32)])
