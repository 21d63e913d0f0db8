"""Resolve command options into models, data, a recorder and an opener."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.commands import options
from bench.commands.output import progress_bar, session_for
from bench.measure.latency import Executor
from bench.measure.progress import Progress, labelled
from bench.measure.setup import Setup
from bench.rows.files import Recorder
from bench.rows.machine import read_machine, read_versions
from bench.session.resume import Session
from cifar10.commands import options as shared
from cifar10.dataset import Dataset, load_dataset
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.predictor import Device, Predictor, PredictorOptions, likely_device
from cifar10.released import default_model
from cifar10.store import ModelStore, StoredModel


@dataclass(frozen=True)
class Choices:
    """Values of the options that the measuring commands share (:func:`measuring`)."""

    results: Path
    as_json: bool
    data: str | None = None
    device: Device = "auto"
    quick: bool = False
    resume: bool = False

    def recorder(self, session_id: str | None = None) -> Recorder:
        """Return a recorder for this command's rows, or for a session with its own run id."""
        return new_recorder(self.results, quick=self.quick, session_id=session_id)

    def dataset(self, progress: Progress) -> Dataset:
        """Return the data set that ``--data`` or the environment names."""
        told = labelled("reading the dataset", progress)
        return load_dataset(self.data, progress=lambda done, total: told("", done, total))

    def session(self, command: str, digest: str | None = None) -> Session:
        """Return a new session, or the one to resume (with rows of the file ``digest``)."""
        return session_for(
            command, self.results, quick=self.quick, resume=self.resume, digest=digest
        )

    @contextlib.contextmanager
    def setup(
        self, *, threads: int = 1, device: Device | None = None, session_id: str | None = None
    ) -> Iterator[Setup]:
        """Yield what a measurement of models works with, under a progress bar."""
        with progress_bar() as progress:
            yield Setup(
                ModelStore(models_dir()),
                self.dataset(progress),
                self.recorder(session_id),
                opener(device or self.device, threads),
                progress,
            )


def measuring(
    *, data: bool = True, device: bool = True, quick: bool = False, resume: bool = False
) -> options.Decorate:
    """Return a decorator that adds the shared options; the command gets them as ``choices``."""
    wanted = {
        options.quick: quick,
        options.resume: resume,
        shared.data: data,
        shared.device: device,
        options.results: True,
        shared.as_json: True,
    }
    names = [field.name for field in fields(Choices)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            chosen = {name: given.pop(name) for name in names if name in given}
            return function(choices=Choices(**chosen), **given)

        decorated: Callable[..., Any] = command
        for option in reversed([option for option, is_wanted in wanted.items() if is_wanted]):
            decorated = option(decorated)
        return decorated

    return decorate


def chosen_models(wanted: Sequence[str] | None) -> list[str]:
    """Return the models to measure: the named ones, or all."""
    store = ModelStore(models_dir())
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
    return chosen_models(names)


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
