"""What the feature cache saves: a recipe's head trained with and without it, on the clock.

Both ways do what a training does: the same images, batches, epochs and validation after each.
Building and tracing the models is left out of either: each is called before, on a whole batch and
on what is left over, the two shapes that the timed calls have. Weights are random: they change no
time.
"""

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.dataset import Dataset
from cifar10.errors import RecipeError
from training import batches
from training.features import EXTRACTION_BATCH, FORMAT_VERSION, FeatureKey, extract_features
from training.networks.backbone_models import (
    build_backbone,
    cut_before_trained,
    with_stored_statistics,
)
from training.networks.backbones import Backbone
from training.networks.models import compile_model
from training.recipes.schema import Phase, Recipe, Smoke
from training.smoke import smoke_dataset
from training.weights import calibrate_random

_EVALUATION_BATCH: Final = 256


@dataclass(frozen=True)
class CacheGain:
    """Seconds of one recipe's first phase, both ways."""

    recipe: str
    images: int
    """Training images; a ninth as many are for validation."""
    epochs: int
    uncached: float
    """Through the frozen base in each epoch."""
    extraction: float
    """Once through the frozen base, and to disk."""
    head: float
    """All epochs, of the head alone."""

    @property
    def ratio(self) -> float:
        """How many times longer it takes without the cache."""
        return self.uncached / (self.extraction + self.head)


def frozen_backbone(recipe: Recipe) -> Backbone:
    """The backbone that the recipe's first phase trains nothing of.

    Raises:
        RecipeError: there is none.
    """
    architecture = recipe.architecture
    if not isinstance(architecture, Backbone) or architecture.trained_layers[0]:
        message = f"recipe {recipe.name!r} does not begin with a frozen backbone: nothing to cache"
        raise RecipeError(message)
    return architecture


def measure_cache_gain(recipe: Recipe, dataset: Dataset, images: int) -> CacheGain:
    """Train the recipe's first phase on ``images`` training images, with the cache and without.

    Keras' models are cleared from memory before it, and so are those that the caller still has.

    Args:
        recipe: one whose first phase trains nothing of its backbone.
        dataset: the first images of which are taken.
        images: how many, at most all.

    Raises:
        RecipeError: the recipe has no frozen backbone.
    """
    architecture, phase = frozen_backbone(recipe), recipe.phases[0]
    keras.backend.clear_session()
    count = min(images, len(dataset.train.labels))
    smoke = Smoke(epochs=1, train_images=count, evaluation_images=math.ceil(count / 9))
    few = smoke_dataset(dataset, smoke)
    architecture = dataclasses.replace(architecture, trained_layers=(0,))
    built = build_backbone(architecture, recipe.name)
    calibrate_random(built, architecture, few.train.images[: recipe.batch_size])
    cut = cut_before_trained(built, 0)
    if cut is None:  # cannot be: nothing of it is trained
        message = f"recipe {recipe.name!r}: nothing to cut off"
        raise RecipeError(message)
    pixels = (few.train.images, few.validation.images)
    uncached = _seconds(with_stored_statistics(built.model), recipe, phase, few, *pixels)
    key = FeatureKey(
        FORMAT_VERSION, architecture.backbone, "random", cut.layer, architecture.preprocessing,
        architecture.resolution, few.record.fingerprint, count, few.record.validation_count,
        keras.version(), keras.backend.backend(),
    )  # fmt: skip
    for split in (few.train, few.validation):
        traced = split.images[: _both_shapes(len(split.images), EXTRACTION_BATCH)]
        batches.predict(cut.frozen, traced, EXTRACTION_BATCH)
    with tempfile.TemporaryDirectory() as folder:
        started = perf_counter()
        features = extract_features(Path(folder), key, cut.frozen, few)
        extraction = perf_counter() - started
        head = _seconds(cut.trained, recipe, phase, few, features.train, features.validation)
    return CacheGain(recipe.name, count, phase.epochs, uncached, extraction, head)


def _both_shapes(count: int, batch: int) -> int:
    """So many images have a whole batch, and one as large as the last of ``count`` is."""
    return min(count, batch + count % batch)


def _seconds(
    model: keras.Model,
    recipe: Recipe,
    phase: Phase,
    dataset: Dataset,
    train: NDArray[np.generic],
    validation: NDArray[np.generic],
) -> float:
    """All epochs of ``phase``, each with its validation."""
    compile_model(model, phase)
    traced = slice(_both_shapes(len(train), recipe.batch_size))
    batches.fit(model, train[traced], dataset.train.labels[traced], recipe.batch_size)
    traced = slice(_both_shapes(len(validation), _EVALUATION_BATCH))
    labels = dataset.validation.labels
    batches.evaluate(model, validation[traced], labels[traced], _EVALUATION_BATCH)
    started = perf_counter()
    for epoch in range(phase.epochs):
        order = np.random.default_rng(epoch).permutation(len(dataset.train.labels))
        batches.fit(model, train[order], dataset.train.labels[order], recipe.batch_size)
        batches.evaluate(model, validation, labels, _EVALUATION_BATCH)
    return perf_counter() - started
