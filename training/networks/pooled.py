"""Build a :class:`~training.recipes.schema.PooledNetwork`."""

from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.networks.normalization import QuickShiftNormalization
from training.networks.patches import patch_axes
from training.networks.task import Task
from training.networks.views import both_views, mean_of_views
from training.recipes.schema import PooledNetwork

_MOMENTUM: Final = 0.9
_EPSILON: Final = 1e-5
_SHIFT_FACTOR: Final = 4.0
_STEM: Final = "stem"


def pooled_network(
    architecture: PooledNetwork, name: str, task: Task, *, for_training: bool = False
) -> keras.Model:
    """Return the untrained model: uint8 (N, H, W, 3) in, float32 (N, L) probabilities out.

    Args:
        architecture: the network to build.
        name: name of the model.
        task: image size and number of classes.
        for_training: build the form for training: images of any size,
            :class:`QuickShiftNormalization`, pooling before the first normalization, one view.
    """
    mirrored = architecture.mirrored and not for_training
    width, last_width = architecture.widths

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

    def convolution(x: Any, filters: int, label: str, strides: int = 1) -> Any:
        return keras.layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{label}_convolution",
        )(x)

    def relu(x: Any, label: str) -> Any:
        return keras.layers.ReLU(name=f"{label}_relu")(x)

    def unit(x: Any, filters: int, label: str, strides: int = 1) -> Any:
        return relu(normalization(convolution(x, filters, label, strides), label), label)

    def pool(x: Any) -> Any:
        return keras.layers.MaxPooling2D(name=f"{_STEM}_pool")(x)

    shape = (None, None, 3) if for_training else task.image_shape
    image = keras.Input(shape, dtype="uint8", name="image")
    seen = both_views(image, architecture.mirror_shift) if mirrored else image
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(seen)  # casts first
    x = convolution(x, width, _STEM)
    x = pool(x) if for_training else x
    x = relu(normalization(x, _STEM), _STEM)
    x = x if for_training else pool(x)
    for number in range(1, architecture.blocks + 1):
        label = f"block{number}"
        y = unit(x, width, f"{label}_1")
        y = normalization(convolution(y, width, f"{label}_2"), f"{label}_2")
        x = relu(keras.layers.Add(name=f"{label}_add")([x, y]), label)
    x = unit(x, last_width, "halved", strides=2)
    x = unit(x, last_width, "last")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if mirrored:
        x = mean_of_views(x)
    # float32 even where a mixed-precision policy is set: probabilities are the contract.
    x = keras.layers.Dense(
        task.class_count, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(image, x, name=name)


def set_stem(model: keras.Model, images: NDArray[np.uint8]) -> None:
    """Initialise the first convolution with principal axes of image patches.

    The filters are the axes along which 3×3 patches of ``images``, uint8 (N, H, W, 3), vary most,
    and their negatives.
    """
    stem = model.get_layer(f"{_STEM}_convolution")
    _, vectors = patch_axes(images, 3)
    count = int(stem.filters) // 2
    largest = vectors[:, ::-1][:, :count]
    kernel = np.concatenate([largest, -largest], axis=1).reshape(3, 3, 3, -1)
    stem.set_weights([kernel.astype(np.float32)])
