"""Resolve command options into models, data, a recorder and an opener."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure.latency import Executor
from bench.measure.progress import Progress, labelled
from bench.rows.files import Recorder
from bench.rows.machine import read_machine, read_versions
from cifar10.dataset import Dataset, load_dataset
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.predictor import Device, Predictor, PredictorOptions, likely_device
from cifar10.released import default_model
from cifar10.store import ModelStore, StoredModel


def chosen_models(store: ModelStore, wanted: Sequence[str] | None) -> list[str]:
    """Return the models to measure: the named ones, or all."""
    if wanted:
        for name in wanted:
            store.card(name)
        return list(dict.fromkeys(wanted))
    names = store.names()
    if not names:
        message = (
            f"there is no model in {store.root}. Point CIFAR10_MODELS to a folder of models, or "
            "make one: cifar10 train simple_cnn && cifar10 export simple_cnn (needs the extra "
            "`train`)"
        )
        raise BenchError(message)
    return names


def model_of(store: ModelStore, wanted: str | None, device: Device = "auto") -> str:
    """Return the model to serve: the named one, else the one released for ``device``, else the
    first.

    Raises:
        BenchError: the store has no model.
    """
    there = store.names()
    if not there:
        message = f"there is no model in {store.root}"
        raise BenchError(message)
    return wanted or default_model(there, likely_device(device)) or there[0]


def served_models(names: Sequence[str], url: str | None) -> Sequence[str | None]:
    """Return the models to start services for; with ``url``, the model to request from that
    service."""
    if url is not None:
        return list(names) or [None]
    return chosen_models(ModelStore(models_dir()), names)


def chosen_dataset(source: str | None, progress: Progress) -> Dataset:
    """Return the data set that ``--data`` or the environment names."""
    told = labelled("reading the dataset", progress)
    return load_dataset(source, progress=lambda done, total: told("", done, total))


def new_recorder(results: Path, *, quick: bool = False, session_id: str | None = None) -> Recorder:
    """Return a recorder for this command's rows, or for a session with its own run id."""
    return Recorder(results, read_machine(), read_versions(), quick=quick, run_id=session_id)


def opener(device: str, threads: int = 1) -> Callable[[StoredModel], Executor]:
    """Return a function that opens a model on ``device``."""
    return lambda stored: open_model(stored, device, threads)


def open_model(stored: StoredModel, device: str, threads: int) -> Executor:
    """Open a model and check its golden answer."""
    options = PredictorOptions(device=device, threads=threads)  # type: ignore[arg-type]
    predictor = Predictor(stored.onnx, options)
    predictor.check_card(stored.card)
    return predictor
