"""Build a :class:`~training.recipes.schema.WhitenedNetwork`."""

from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE
from training.networks.residual import FusedBatchNormalization
from training.networks.views import both_views, mean_of_views
from training.recipes.schema import WhitenedNetwork

_PATCH: Final = 2
_WHITENING: Final = "whitening"
_WHITENING_IMAGES: Final = 5_000
_LEAST_VARIANCE: Final = 1.25e-4
"""Added to every variance before it is divided by: 5e-4 of standardised pixels, in the paper's
code, whose variance is about four times that of pixels scaled to -1–1."""

_MOMENTUM: Final = 0.6
_EPSILON: Final = 1e-5
_SHIFT_FACTOR: Final = 8.0
"""Its square, 64, is how many times as fast a shift learns."""

_LOGIT_SCALE: Final = 1 / 9


@keras.saving.register_keras_serializable(package="training")
class QuickShiftNormalization(FusedBatchNormalization):
    """Batch normalization without a scale, whose shift learns 64 times as fast as the weights.

    The stored shift is an eighth of the one that is added: under gradient descent the shift so
    moves by the square of that factor, and is decayed like any other weight.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**(arguments | {"scale": False, "center": False}))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the shift besides the moving averages."""
        super().build(input_shape)
        self.shift = self.add_weight(
            name="shift", shape=(input_shape[-1],), initializer="zeros", trainable=True
        )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize ``inputs``, (N, height, width, channels)."""
        outputs = super().call(inputs, training=training, mask=mask)
        fused = training and keras.backend.backend() == "tensorflow"
        return outputs if fused else outputs + self._offset()

    def _offset(self) -> Any:
        return _SHIFT_FACTOR * self.shift

    @property
    def whole_shift(self) -> NDArray[np.float32]:
        """What is added: the ``beta`` of a plain batch normalization."""
        return _SHIFT_FACTOR * np.asarray(keras.ops.convert_to_numpy(self.shift))


@keras.saving.register_keras_serializable(package="training")
class PartialIdentity(keras.initializers.Initializer):  # type: ignore[misc]
    """Convolution kernels whose first output channels repeat the input ones.

    The others are drawn evenly from ±1/√(inputs of a filter).
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """The kernel, (height, width, inputs, outputs)."""
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
    architecture: WhitenedNetwork, name: str, *, for_training: bool = False
) -> keras.Model:
    """The untrained model: uint8 (N, 32, 32, 3) in, float32 (N, 10) probabilities out.

    Args:
        architecture: what to build.
        name: the model's.
        for_training: with :class:`QuickShiftNormalization`, and never ``mirrored``; its weights go
            into the plain form by :func:`plain_weights`.
    """
    mirrored = architecture.mirrored and not for_training

    def normalization(x: Any, label: str) -> Any:
        label = f"{label}_normalization"
        if for_training:
            layer = QuickShiftNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=label)
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
            kernel_initializer=PartialIdentity(),
            name=f"{label}_convolution",
        )(x)

    def activation(x: Any, label: str) -> Any:
        return keras.layers.Activation("gelu", name=f"{label}_gelu")(x)

    image = keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")
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
        CLASS_COUNT, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(image, x, name=name)


def set_whitening(model: keras.Model, images: NDArray[np.uint8]) -> None:
    """Make the first convolution whiten the patches of ``images``, uint8 (N, 32, 32, 3).

    Its filters are the eigenvectors of the patches' second moments, each divided by the root of its
    eigenvalue, and the negatives of them all.
    """
    pixels = images[:_WHITENING_IMAGES].astype(np.float32) / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (_PATCH, _PATCH), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * _PATCH**2).astype(np.float64)
    variances, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors / np.sqrt(variances + _LEAST_VARIANCE)
    kernel = np.concatenate([filters, -filters], axis=1).reshape(_PATCH, _PATCH, 3, -1)
    model.get_layer(_WHITENING).set_weights([kernel.astype(np.float32)])


def plain_weights(trained: keras.Model, plain: keras.Model) -> None:
    """Give ``plain`` the weights of ``trained``, the same network built ``for_training``."""
    for layer in plain.layers:
        if not layer.weights:
            continue
        source = trained.get_layer(layer.name)
        if isinstance(source, QuickShiftNormalization):
            mean, variance = (
                keras.ops.convert_to_numpy(found)
                for found in (source.moving_mean, source.moving_variance)
            )
            layer.set_weights([source.whole_shift, mean, variance])
        else:
            layer.set_weights(source.get_weights())
