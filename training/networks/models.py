"""Build and compile a recipe's Keras model. Preprocessing is layers inside it.

Every model takes uint8 (N, H, W, 3), RGB, and gives float32 (N, L), class probabilities.
"""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.card import Parameters
from cifar10.errors import RecipeError
from training.networks.backbone_models import build_backbone, describe_backbone_preprocessing
from training.networks.backbones import Backbone
from training.networks.normalization import FusedBatchNormalization, take_trained_weights
from training.networks.pooled import pooled_network, set_stem
from training.networks.task import CIFAR10, Task
from training.networks.whitened import set_whitening, whitened_network
from training.recipes.schema import (
    AdamOneCycle,
    OneCycle,
    Phase,
    PooledNetwork,
    Recipe,
    SimpleCnn,
    WhitenedNetwork,
)


def build_model(recipe: Recipe, *, for_training: bool = False) -> keras.Model:
    """Return the untrained model, its weights drawn from Keras' current random state.

    Args:
        recipe: the recipe whose model to build.
        for_training: use faster layers with the same results and the same weights, in the same
            order, in place of Keras' own.

    Raises:
        RecipeError: it does not have the parameters that the recipe expects.
    """
    name, task = recipe.name, recipe.task
    match recipe.architecture:
        case Backbone():
            model = build_backbone(recipe.architecture, name, task).model
        case SimpleCnn():
            model = _simple_cnn(recipe.architecture, name, task)
        case WhitenedNetwork():
            model = whitened_network(recipe.architecture, name, task, for_training=for_training)
        case PooledNetwork():
            model = pooled_network(recipe.architecture, name, task, for_training=for_training)
    check_parameters(model, recipe)
    return model


def begin_from_images(model: keras.Model, recipe: Recipe, images: NDArray[np.uint8]) -> None:
    """Initialise the layers of ``model`` that depend on the training images, uint8 (N, H, W, 3).

    In some architectures, that is the first convolution.
    """
    match recipe.architecture:
        case WhitenedNetwork():
            set_whitening(model, images)
        case PooledNetwork():
            set_stem(model, images)
        case _:
            pass


def check_parameters(model: keras.Model, recipe: Recipe) -> None:
    """Compare ``model``, trainable as in the last phase, with what the recipe says of CIFAR-10.

    Raises:
        RecipeError: it does not have the parameters that the recipe expects.
    """
    if recipe.task != CIFAR10:
        return
    found = count_parameters(model)
    if found != recipe.expected_parameters:
        message = (
            f"recipe {recipe.name!r} builds a model with {found}, expected "
            f"{recipe.expected_parameters}: the architecture is not the one the recipe describes"
        )
        raise RecipeError(message)


def compile_model(
    model: keras.Model, phase: Phase, label_smoothing: float = 0.0, *, soft_targets: bool = False
) -> None:
    """Give ``model`` a fresh optimizer for ``phase``.

    The sparse loss takes class ids. Smoothed targets, and those with a teacher's part, are not
    class ids, so the caller passes them as (N, L). Keras decides whether to compile with XLA; on
    TensorFlow's CPU backend it does not (forcing it made an epoch of the simple CNN twice as long).
    """
    model.compile(
        optimizer=_optimizer(phase),
        loss=(
            keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
            if label_smoothing or soft_targets
            else "sparse_categorical_crossentropy"
        ),
        metrics=["accuracy"],
    )


def _optimizer(phase: Phase) -> keras.optimizers.Optimizer:
    match phase.schedule:
        case None:
            return keras.optimizers.Adam(phase.learning_rate)
        case AdamOneCycle():
            return keras.optimizers.AdamW(
                phase.learning_rate, weight_decay=phase.schedule.weight_decay
            )
        case OneCycle():
            return keras.optimizers.SGD(
                phase.learning_rate,
                momentum=phase.schedule.momentum,
                nesterov=True,
                weight_decay=phase.schedule.weight_decay,
            )


def count_parameters(model: keras.Model) -> Parameters:
    """Count the model's weights, optimizer and metrics aside."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    non_trainable = sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    return Parameters(trainable + non_trainable, trainable, non_trainable)


def in_plain_layers(model: keras.Model, recipe: Recipe) -> keras.Model:
    """Return the model to keep: the trained one in Keras' own layers, ``mirrored`` if the recipe
    says so."""
    if not any(isinstance(layer, FusedBatchNormalization) for layer in model.layers):
        return model
    plain = build_model(recipe)
    take_trained_weights(plain, model)
    return plain


def describe_preprocessing(recipe: Recipe) -> str:
    """Describe in words, for the card, how the model's layers transform the pixels."""
    match recipe.architecture:
        case SimpleCnn():
            return "cast to float32 and divided by 255, giving 0–1"
        case WhitenedNetwork() | PooledNetwork():
            return "cast to float32, divided by 127.5, minus 1, giving -1–1"
        case Backbone():
            return describe_backbone_preprocessing(recipe.architecture, recipe.task)


def _simple_cnn(architecture: SimpleCnn, name: str, task: Task) -> keras.Model:
    image = keras.Input(task.image_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, name="scale")(image)  # casts to float32 first
    for block, filters in enumerate(architecture.filters, 1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"convolution_{block}"
        )(x)
        x = keras.layers.MaxPooling2D(name=f"pool_{block}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(architecture.dense_units, activation="relu", name="hidden")(x)
    # float32 even where a mixed-precision policy is set: probabilities are the contract.
    x = keras.layers.Dense(
        task.class_count, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(image, x, name=name)
