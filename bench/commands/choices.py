"""What the command line's options choose: models, data, where rows go, how a model is opened."""

import argparse
from collections.abc import Sequence

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
    """The models to measure: those wanted, each of which must be there, or all."""
    if wanted:
        for name in wanted:
            store.card(name)
        return list(dict.fromkeys(wanted))
    names = store.names()
    if not names:
        message = (
            f"there is no model in {store.root}. "
            "Make one: python -m training train simple_cnn && python -m export simple_cnn"
        )
        raise BenchError(message)
    return names


def model_of(store: ModelStore, wanted: str | None, device: Device = "auto") -> str:
    """The model to serve: the one wanted, else the one released for ``device``, else the first.

    Raises:
        BenchError: there is none.
    """
    there = store.names()
    if not there:
        message = f"there is no model in {store.root}"
        raise BenchError(message)
    return wanted or default_model(there, likely_device(device)) or there[0]


def served_models(options: argparse.Namespace) -> Sequence[str | None]:
    """The models to start services for; with ``--url``, what to ask that one for."""
    if options.url is not None:
        return [options.model]
    return chosen_models(ModelStore(models_dir()), [options.model] if options.model else None)


def each_served_model(options: argparse.Namespace) -> Sequence[str | None]:
    """As :func:`_served_names`, for commands that take several models."""
    if options.url is not None:
        return options.models or [None]
    return chosen_models(ModelStore(models_dir()), options.models)


def chosen_dataset(options: argparse.Namespace, progress: Progress) -> Dataset:
    """The data that ``--data`` names, or the environment."""
    told = labelled("reading the dataset", progress)
    return load_dataset(options.data, progress=lambda done, total: told("", done, total))


def new_recorder(options: argparse.Namespace, session_id: str | None = None) -> Recorder:
    """For the rows of this command, or of a session that has an id of its own."""
    quick = bool(getattr(options, "quick", False))
    return Recorder(
        options.results, read_machine(), read_versions(), quick=quick, run_id=session_id
    )


def open_model(stored: StoredModel, device: str, threads: int) -> Executor:
    """Ready to run, its golden answer checked."""
    options = PredictorOptions(device=device, threads=threads)  # type: ignore[arg-type]
    predictor = Predictor(stored.onnx, options)
    predictor.check_golden(stored.card.golden)
    return predictor
