"""Adapt a recipe, whose numbers are CIFAR-10's, to a user's own images."""

import dataclasses
import re
import unicodedata
from typing import Final

from cifar10.dataset import Dataset
from cifar10.errors import RecipeError
from cifar10.labels import DATASET_NAME, IMAGE_SIZE
from training.networks.backbones import Backbone
from training.networks.task import Task
from training.recipes.schema import Augmentation, OneCycle, Phase, Recipe

_SMALL_SIZES: Final = (32, 64)
_BACKBONE_SIZES: Final = (96, 128, 160, 192, 224)
"""Sizes for which Keras publishes weights of MobileNetV2."""

_STEPS: Final = 16
"""Minimum number of steps in an epoch, unless :data:`_SMALLEST_BATCH` prevents it."""
_SMALLEST_BATCH: Final = 16


def accepted_sizes(recipe: Recipe) -> tuple[int, ...]:
    """Return the sizes at which a recipe takes a user's own images, in pixels per side.

    A backbone whose features are flattened has a head for one size only.
    """
    architecture = recipe.architecture
    if not isinstance(architecture, Backbone):
        return _SMALL_SIZES
    if architecture.head.pooling == "flatten":
        return (architecture.resolution,)
    return _BACKBONE_SIZES


def own_size(recipe: Recipe, wanted: int | None) -> int:
    """Return the size to decode a user's own images to.

    Args:
        recipe: the recipe to train.
        wanted: the requested size; None: a backbone's resolution, else the largest size.

    Raises:
        RecipeError: the recipe does not accept the size.
    """
    sizes = accepted_sizes(recipe)
    if wanted is None:
        architecture = recipe.architecture
        preferred = architecture.resolution if isinstance(architecture, Backbone) else sizes[-1]
        return preferred if preferred in sizes else sizes[0]
    if wanted not in sizes:
        message = (
            f"recipe {recipe.name!r} does not take images of {wanted} × {wanted} pixels; it takes "
            f"{', '.join(map(str, sizes))}"
        )
        raise RecipeError(message)
    return wanted


def for_dataset(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe for a user's own images, or as it is for CIFAR-10.

    A backbone works at the images' size. Augmentations given in pixels grow with the size. With few
    images, batches are smaller, and so is the learning rate of gradient descent. There is no
    teacher, because none knows the classes.
    """
    if dataset.record.name == DATASET_NAME:
        return recipe
    size = dataset.image_shape[0]
    architecture = recipe.architecture
    if isinstance(architecture, Backbone):
        architecture = dataclasses.replace(architecture, resolution=size)
    batch_size = _batch_size(recipe.batch_size, len(dataset.train.labels))
    share = batch_size / recipe.batch_size
    return dataclasses.replace(
        recipe,
        architecture=architecture,
        task=Task(size, len(dataset.labels)),
        batch_size=batch_size,
        phases=tuple(_phase(phase, size, share) for phase in recipe.phases),
        augmentation=_scaled(recipe.augmentation, size),
        distillation=None,
    )


def check_size(dataset: Dataset, wanted: int | None) -> None:
    """Check that a size was requested for a user's own images only.

    Raises:
        RecipeError: the images are CIFAR-10's, which have another size.
    """
    size = dataset.image_shape[0]
    if wanted is not None and wanted != size:
        message = (
            f"--size {wanted} is for your own images; those of {dataset.record.source} are "
            f"CIFAR-10's, {size} × {size} pixels"
        )
        raise RecipeError(message)


def model_name(recipe: Recipe, dataset: Dataset) -> str:
    """Return the default name of a model: the recipe's, for a user's own images preceded by the
    data set's."""
    if dataset.record.name == DATASET_NAME:
        return recipe.name
    plain = unicodedata.normalize("NFKD", dataset.record.name).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    return "_".join((*(words or ["own"]), recipe.name))


def _batch_size(batch_size: int, images: int) -> int:
    while batch_size > _SMALLEST_BATCH and images < _STEPS * batch_size:
        batch_size //= 2
    return batch_size


def _phase(phase: Phase, size: int, share: float) -> Phase:
    rate = phase.learning_rate
    if isinstance(phase.schedule, OneCycle):  # linear scaling: Goyal et al., arXiv 1706.02677
        rate *= share
    augmentation = _scaled(phase.augmentation, size)
    return dataclasses.replace(phase, learning_rate=rate, augmentation=augmentation, taught=True)


def _scaled(augmentation: Augmentation | None, size: int) -> Augmentation | None:
    if augmentation is None:
        return None
    pixels = {
        name: getattr(augmentation, name) * size // IMAGE_SIZE
        for name in ("shift", "crop", "cutout")
    }
    return dataclasses.replace(augmentation, **pixels)
