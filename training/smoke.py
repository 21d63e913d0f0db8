"""Reduce a data set to the images a recipe needs, or to a few for a smoke test."""

import dataclasses

from cifar10.card import DatasetRecord
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
        dataset = _of(train, dataset.validation, dataset.test, dataset.record)
    if not smoke and not random:
        return recipe, dataset
    return smoke_form(recipe), smoke_dataset(dataset, recipe.smoke)


def smoke_dataset(dataset: Dataset, smoke: Smoke) -> Dataset:
    """Return the first images of each split; they are in hash order, so the classes are mixed."""
    return _of(
        _first(dataset.train, smoke.train_images),
        _first(dataset.validation, smoke.evaluation_images),
        _first(dataset.test, smoke.evaluation_images),
        dataset.record,
    )


def _of(train: Split, validation: Split, test: Split, record: DatasetRecord) -> Dataset:
    """Return a data set with these splits, with their image counts in its record."""
    record = dataclasses.replace(
        record,
        train_count=len(train.labels),
        validation_count=len(validation.labels),
        test_count=len(test.labels),
    )
    return Dataset(train, validation, test, record)


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])
