"""Setup shared by the measurements of one command: models, images, recorder, opener, progress."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec

import numpy as np
from numpy.typing import NDArray

from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome, merged
from bench.rows.files import Recorder
from cifar10.card import ModelCard
from cifar10.dataset import Dataset
from cifar10.errors import StoreError
from cifar10.store import ModelStore, StoredModel

P = ParamSpec("P")

Open = Callable[[StoredModel], Executor]
"""Function that loads a stored model and checks it against its golden answer."""

FindDataset = Callable[[ModelCard], Dataset | None]
"""Function that returns the data set to measure a model on; None if there is none, which it has
reported."""


@dataclass(frozen=True)
class Setup:
    """Inputs and output of a measurement of models."""

    store: ModelStore
    dataset: Dataset
    """Data set whose test images are used."""
    recorder: Recorder
    open_model: Open
    """Loads a model; an exception becomes that model's failure row."""
    progress: Progress = silent
    find_dataset: FindDataset | None = None
    """Finds each model's data set; None: all are measured on :attr:`dataset`."""

    def groups(self, names: Sequence[str | None]) -> Iterator[tuple["Setup", list[str | None]]]:
        """Yield the models of each data set with a setup for it. Models without one are left
        out."""
        groups: dict[int, tuple[Dataset, list[str | None]]] = {}
        for name in names:
            dataset = self._dataset_of(name)
            if dataset is not None:
                groups.setdefault(id(dataset), (dataset, []))[1].append(name)
        for dataset, group in groups.values():
            yield replace(self, dataset=dataset, find_dataset=None), group

    def images(self, count: int) -> NDArray[np.uint8]:
        """Return the first ``count`` test images, repeated if there are fewer: uint8 (count,
        height, width, 3), RGB. For measurements of time."""
        images = self.dataset.test.images[:count]
        return images if len(images) == count else np.resize(images, (count, *images.shape[1:]))

    def measurable(self, cards: Sequence[ModelCard]) -> list[ModelCard]:
        """Return the cards of the models that have a data set to be measured on."""
        return [card for card in cards if self._dataset_of(card.name) is not None]

    def _dataset_of(self, name: str | None) -> Dataset | None:
        if self.find_dataset is None or name is None:
            return self.dataset
        try:
            card = self.store.card(name)
        except StoreError:  # the measurement records it as the model's failure
            return self.dataset
        return self.find_dataset(card)


def by_dataset(measure: Callable[P, RunOutcome]) -> Callable[P, RunOutcome]:
    """Decorate a measurement, so that it measures the models of one data set after the other.

    Its parameters include ``setup`` and ``names``.
    """
    signature = inspect.signature(measure)

    @functools.wraps(measure)
    def each(*args: P.args, **kwargs: P.kwargs) -> RunOutcome:
        given = signature.bind(*args, **kwargs)
        outcomes = []
        for setup, names in given.arguments["setup"].groups(given.arguments["names"]):
            given.arguments.update(setup=setup, names=names)
            outcomes.append(measure(*given.args, **given.kwargs))
            if outcomes[-1].interrupted:
                break
        return merged(outcomes)

    return each
