"""Cut a dataset down, so that a recipe can be walked in seconds."""

import dataclasses

from cifar10.dataset import Dataset, Split
from training.backbones import Backbone, WeightsChoice
from training.recipes import Recipe, Smoke, smoke_form


def cut_down(
    recipe: Recipe, dataset: Dataset, *, smoke: bool, weights: WeightsChoice
) -> tuple[Recipe, Dataset]:
    """What is really trained, and on what: the smoke form where it is asked for, and where a
    backbone's weights are random, for what such a model costs does not depend on its training."""
    random = weights.random and isinstance(recipe.architecture, Backbone)
    if not smoke and not random:
        return recipe, dataset
    return smoke_form(recipe), smoke_dataset(dataset, recipe.smoke)


def smoke_dataset(dataset: Dataset, smoke: Smoke) -> Dataset:
    """The first images of each split; they are in hash order, so the classes are mixed."""
    train = _first(dataset.train, smoke.train_images)
    validation = _first(dataset.validation, smoke.evaluation_images)
    test = _first(dataset.test, smoke.evaluation_images)
    record = dataclasses.replace(
        dataset.record,
        train_count=len(train.labels),
        validation_count=len(validation.labels),
        test_count=len(test.labels),
    )
    return Dataset(train, validation, test, record)


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])
