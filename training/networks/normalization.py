"""Batch normalization for fast training, and conversion of its weights to Keras' own layers."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


@keras.saving.register_keras_serializable(package="training")
class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' batch normalization through TensorFlow's fused kernel while training.

    Keras 3 computes mean, variance and the rest in separate operations. On a CPU, where each is a
    pass over memory, that was half of a training step: with this layer a step took 0.62 to 0.78 of
    the time if the channels are multiples of 16 (docs/experiments.md). Weights and their order are
    the same, and so is the result, up to rounding; the running variance is the unbiased one. On
    other backends, and in inference, it is Keras' own layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize ``inputs``, (N, height, width, channels)."""
        if not training or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, self._offset(), epsilon=self.epsilon, is_training=True
        )
        for running, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + found * (1 - self.momentum))
        return outputs

    def _offset(self) -> Any:
        """Return the offset that is added to the normalized values, (channels,)."""
        return self.beta


@keras.saving.register_keras_serializable(package="training")
class QuickShiftNormalization(FusedBatchNormalization):
    """Batch normalization without a scale, whose shift learns faster than the weights.

    The shift that is added is the stored one times ``factor``. Under gradient descent it therefore
    moves ``factor`` squared times as fast (64 times in Jordan, arXiv 2404.00498), and is decayed
    like any other weight.
    """

    def __init__(self, factor: float = 8.0, **arguments: Any) -> None:
        super().__init__(**(arguments | {"scale": False, "center": False}))
        self.factor = factor

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for a ``.keras`` file."""
        config: dict[str, Any] = super().get_config()
        return config | {"factor": self.factor}

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
        return self.factor * self.shift

    def plain_weights(self) -> list[NDArray[np.float32]]:
        """Return the weights of an equivalent Keras batch normalization without a scale."""
        shift, mean, variance = (
            np.asarray(keras.ops.convert_to_numpy(weight))
            for weight in (self.shift, self.moving_mean, self.moving_variance)
        )
        return [self.factor * shift, mean, variance]


def take_trained_weights(plain: keras.Model, trained: keras.Model) -> None:
    """Copy the weights of ``trained`` to the layers of ``plain`` with the same names, which may
    include plain forms of :class:`QuickShiftNormalization`."""
    for layer in plain.layers:
        if not layer.weights:
            continue
        source = trained.get_layer(layer.name)
        quick = isinstance(source, QuickShiftNormalization)
        layer.set_weights(source.plain_weights() if quick else source.get_weights())
