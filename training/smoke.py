"""Cut a dataset down: to what a recipe is trained on, or so that it can be walked in seconds."""

import dataclasses

from cifar10.card import DatasetRecord
from cifar10.dataset import Dataset, Split
from training.networks.backbones import Backbone, WeightsChoice
from training.recipes.schema import Recipe, Smoke, smoke_form


def cut_down(
    recipe: Recipe, dataset: Dataset, *, smoke: bool, weights: WeightsChoice
) -> tuple[Recipe, Dataset]:
    """What is really trained, and on what: the smoke form where it is asked for, and where a
    backbone's weights are random, for what such a model costs does not depend on its training."""
    random = weights.random and isinstance(recipe.architecture, Backbone)
    if recipe.train_images is not None:
        train = _first(dataset.train, recipe.train_images)
        dataset = _of(train, dataset.validation, dataset.test, dataset.record)
    if not smoke and not random:
        return recipe, dataset
    return smoke_form(recipe), smoke_dataset(dataset, recipe.smoke)


def smoke_dataset(dataset: Dataset, smoke: Smoke) -> Dataset:
    """The first images of each split; they are in hash order, so the classes are mixed."""
    return _of(
        _first(dataset.train, smoke.train_images),
        _first(dataset.validation, smoke.evaluation_images),
        _first(dataset.test, smoke.evaluation_images),
        dataset.record,
    )


def _of(train: Split, validation: Split, test: Split, record: DatasetRecord) -> Dataset:
    """These splits, and the record with how many images are in them."""
    record = dataclasses.replace(
        record,
        train_count=len(train.labels),
        validation_count=len(validation.labels),
        test_count=len(test.labels),
    )
    return Dataset(train, validation, test, record)


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])
