"""Cut a dataset down, so that a recipe can be walked in seconds."""

import dataclasses

from cifar10.dataset import Dataset, Split
from training.recipes import Smoke


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
