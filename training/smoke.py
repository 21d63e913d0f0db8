"""Reduce a data set to the images a recipe needs, or to a few for a smoke test."""

import dataclasses

from cifar10.dataset import Dataset, Split
from training.networks.backbones import Backbone, WeightsChoice
from training.recipes.schema import Recipe, Smoke, smoke_form


def cut_down(
    recipe: Recipe, dataset: Dataset, *, smoke: bool, weights: WeightsChoice
) -> tuple[Recipe, Dataset]:
    """Return the recipe and data set to train with.

    The smoke form is used on request, and if a backbone's weights are random, because the cost of
    such a model does not depend on its training.
    """
    random = weights.random and isinstance(recipe.architecture, Backbone)
    if recipe.train_images is not None:
        train = _first(dataset.train, recipe.train_images)
        dataset = _reduced(dataset, train, dataset.validation, dataset.test)
    if not smoke and not random:
        return recipe, dataset
    return smoke_form(recipe), smoke_dataset(dataset, recipe.smoke)


def smoke_dataset(dataset: Dataset, smoke: Smoke) -> Dataset:
    """Return the first images of each split; they are in hash order, so the classes are mixed."""
    return _reduced(
        dataset,
        _first(dataset.train, smoke.train_images),
        _first(dataset.validation, smoke.evaluation_images),
        _first(dataset.test, smoke.evaluation_images),
    )


def _reduced(dataset: Dataset, train: Split, validation: Split, test: Split) -> Dataset:
    """Return the data set with these splits, and their image counts in its record."""
    record = dataclasses.replace(
        dataset.record,
        train_count=len(train.labels),
        validation_count=len(validation.labels),
        test_count=len(test.labels),
    )
    return Dataset(train, validation, test, record, dataset.labels)


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])
