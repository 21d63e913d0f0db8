"""Build a pretrained backbone with its head as one flat Keras model, and split it.

Flat means that the backbone's layers belong to the model itself, so it can be cut at any of them.
The part before the cut is never trained, so it runs over the data only once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras

from training.networks.backbones import Backbone, Head
from training.networks.task import CIFAR10, Task

_CAFFE_MEAN: Final = (103.939, 116.779, 123.68)
"""ImageNet's mean of blue, green, red, 0–255; from ``keras.applications``."""

_EFFICIENTNET_DEVIATION: Final = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of red, green, blue, 0–1; from ``keras.applications``."""

_POOLED: Final = "pooled"

_IMAGE_RANK: Final = 4


@dataclass(frozen=True)
class BuiltBackbone:
    """A model and its parts, which share their layers."""

    model: keras.Model
    """Whole model: uint8 (N, H, W, 3), RGB → float32 (N, L), class probabilities."""
    base: keras.Model
    """Backbone: the same pixels → its last feature map."""
    layers: tuple[keras.layers.Layer, ...]
    """Layers of the backbone, in order, without preprocessing and head."""


@dataclass(frozen=True)
class Cut:
    """A model in two parts: ``frozen`` maps pixels to features, ``trained`` maps features to
    outputs."""

    frozen: keras.Model
    trained: keras.Model
    layer: str
    """Name of the last layer of ``frozen``."""


@keras.saving.register_keras_serializable(package="cifar10_training")
class StoredStatistics(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation that uses its stored mean and variance, even in training.

    ``base(x, training=False)`` is not enough: Keras 3 passes the mode of the whole model's call to
    every layer of a functional model, overriding the mode set when the layer was added.

    On TensorFlow it uses the fused kernel, which needs one pass over memory, forwards and
    backwards, where Keras 3 needs several: a step of MobileNetV2 at 96 pixels took nine tenths of
    the CPU time (docs/experiments.md).
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise as in inference, regardless of ``training``."""
        if keras.backend.backend() != "tensorflow" or len(inputs.shape) != _IMAGE_RANK:
            return super().call(inputs, training=False, mask=mask)
        import tensorflow as tf

        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma,
            self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=False,
        )
        return outputs


def build_backbone(architecture: Backbone, name: str, task: Task = CIFAR10) -> BuiltBackbone:
    """Build the whole model with random weights from Keras' current random state.

    Its trainable layers are those of the last phase.
    """
    image = keras.Input(task.image_shape, dtype="uint8", name="image")
    x = _preprocess(image, architecture)
    if architecture.resolution != task.image_size:
        size = architecture.resolution
        x = keras.layers.Resizing(size, size, interpolation="bilinear", name="resize")(x)
    before = _layers_up_to(image, x)
    base = _application(architecture, x)
    model = keras.Model(
        base.input, _head(base.output, architecture.head, task.class_count), name=name
    )
    layers = tuple(layer for layer in base.layers if layer.name not in before)
    built = BuiltBackbone(model, base, layers)
    set_trained_layers(built, architecture.trained_layers[-1])
    return built


def set_trained_layers(built: BuiltBackbone, count: int) -> None:
    """Make only the head and the backbone's last ``count`` layers trainable.

    It sets each layer, because setting ``trainable`` on a model that already has that value does
    not change its layers.
    """
    first = len(built.layers) - count
    for index, layer in enumerate(built.layers):
        layer.trainable = index >= first


def describe_backbone_preprocessing(architecture: Backbone, task: Task = CIFAR10) -> str:
    """Describe in words how the layers before the backbone transform the pixels."""
    done = {
        "unit": "cast to float32 and divided by 255, giving 0–1",
        "caffe": "cast to float32, RGB reversed to BGR, ImageNet's mean subtracted",
        "symmetric": "cast to float32, divided by 127.5 and 1 subtracted, giving −1 to 1",
        "raw": "cast to float32, 0–255; scaled inside the backbone",
    }[_pixels(architecture)]
    if architecture.resolution == task.image_size:
        return done
    return f"{done}; resized to {architecture.resolution} × {architecture.resolution}, bilinear"


def cut_before_trained(built: BuiltBackbone, count: int) -> Cut | None:
    """Cut the model before the first of the last ``count`` backbone layers, which are trained.

    The cut is at a single tensor (not inside a residual block). If the whole backbone is frozen,
    the pooling is in the frozen part too.

    Returns:
        None if nothing of the backbone is frozen.
    """
    if count == 0:
        cut_at = built.model.get_layer(_POOLED)
        return _cut(built.model, cut_at)
    for layer in reversed(built.layers[: len(built.layers) - count]):
        try:
            return _cut(built.model, layer)
        except ValueError:  # another path bypasses this layer
            continue
    return None


def with_stored_statistics(model: keras.Model) -> keras.Model:
    """Return a copy of ``model`` for training whose batch normalisation uses stored statistics.

    The weights are copies, in the same order.
    """

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = StoredStatistics
        return kind.from_config(layer.get_config())

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def _cut(model: keras.Model, layer: keras.layers.Layer) -> Cut:
    trained = keras.Model(layer.output, model.output, name=model.name)
    return Cut(keras.Model(model.input, layer.output), trained, layer.name)


def _pixels(architecture: Backbone) -> str:
    unit = architecture.preprocessing == "unit"
    return "unit" if unit else architecture.pretrained.native


def _preprocess(image: Any, architecture: Backbone) -> Any:
    match _pixels(architecture):
        case "unit":
            # The layer casts to float32 first.
            return keras.layers.Rescaling(1 / 255, name="scale")(image)
        case "symmetric":
            return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)
        case "caffe":
            x = keras.layers.Rescaling(1.0, name="cast")(image)
            x = keras.ops.take(x, (2, 1, 0), axis=-1)
            offset = [-mean for mean in _CAFFE_MEAN]
            return keras.layers.Rescaling(1.0, offset=offset, name="subtract_mean")(x)
        case _:
            return keras.layers.Rescaling(1.0, name="cast")(image)


def _layers_up_to(image: Any, x: Any) -> Sequence[str]:
    return [layer.name for layer in keras.Model(image, x).layers]


def _application(architecture: Backbone, x: Any) -> keras.Model:
    """Apply the backbone to ``x`` as Keras builds it for ImageNet weights, without loading them."""
    size = architecture.resolution
    constructor = getattr(keras.applications, architecture.pretrained.title)
    base = constructor(weights=None, include_top=False, input_tensor=x, input_shape=(size, size, 3))
    if architecture.backbone.startswith("efficientnet"):
        base = _as_for_imagenet(base)
    # Some expect a list with one input and would warn at every call with the bare input.
    return keras.Model(base.inputs[0], base.outputs[0], name=base.name)


def _as_for_imagenet(base: keras.Model) -> keras.Model:
    """Add the scaling that Keras adds to EfficientNet only when it loads the weights itself."""
    factors = [1 / math.sqrt(deviation) for deviation in _EFFICIENTNET_DEVIATION]

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        x = layer(*arguments, **options)
        if isinstance(layer, keras.layers.Normalization):
            x = keras.layers.Rescaling(factors, name="imagenet_deviation")(x)
        return x

    # Use new layers, because a layer used in two graphs has two outputs.
    return keras.models.clone_model(base, call_function=call)


def _head(x: Any, head: Head, class_count: int) -> Any:
    if head.pooling == "flatten":
        x = keras.layers.Flatten(name=_POOLED)(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name=_POOLED)(x)
    for index, (units, share) in enumerate(zip(head.dense_units, head.dropout, strict=True), 1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        x = keras.layers.Dropout(share, name=f"dropout_{index}")(x)
    # float32 even under a mixed-precision policy: the contract requires float32 probabilities.
    return keras.layers.Dense(
        class_count, activation="softmax", dtype="float32", name="probabilities"
    )(x)
