"""What the measurements of one command share: models, images, recorder, opener and progress."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.rows.files import Recorder
from cifar10.dataset import Dataset
from cifar10.store import ModelStore, StoredModel

Open = Callable[[StoredModel], Executor]
"""Function that loads a stored model and checks it against its golden answer."""


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
