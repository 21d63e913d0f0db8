"""Resolve command options into models, data, a recorder and an opener."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.commands import options
from bench.commands.output import progress_bar, say, session_for
from bench.measure.latency import Executor
from bench.measure.progress import Progress
from bench.measure.setup import FindDataset, Setup
from bench.rows.files import Recorder
from bench.rows.machine import read_machine, read_versions
from bench.session.resume import Session
from cifar10.card import ModelCard
from cifar10.commands import options as shared
from cifar10.dataset import Dataset, dataset_of, load_dataset
from cifar10.environment import engine, models_dir
from cifar10.errors import BenchError, DataError
from cifar10.labels import DATASET_NAME
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

    def dataset(self, progress: Progress, card: ModelCard | None = None) -> Dataset:
        """Return the data set that ``--data`` or the environment names; without ``--data``, the
        one that the model of ``card`` was trained on.

        Raises:
            DataError: there is none, or it is damaged.
            BenchError: its images or classes are not the model's.
        """

        def told(done: int, total: int) -> None:
            progress("reading the dataset", done, total)

        if card is None:
            return load_dataset(self.data, progress=told)
        if self.data is None:
            found = dataset_of(card.dataset, card.image_shape, fit=card.fit, progress=told)
        else:
            found = load_dataset(self.data, shape=card.image_shape, fit=card.fit, progress=told)
        if found.image_shape != card.image_shape:
            sizes = [
                f"{width} × {height}" for height, width, _ in (card.image_shape, found.image_shape)
            ]
            message = f"it takes images of {sizes[0]}, those of {found.record.name} are {sizes[1]}"
            raise BenchError(message)
        if found.labels != card.labels:
            message = f"its classes are not those of the data set {found.record.name}"
            raise BenchError(message)
        return found

    def _finder(self, progress: Progress) -> FindDataset:
        """Return a function that finds a model's data set, and says once why there is none."""
        known: dict[object, Dataset | None] = {}

        def find(card: ModelCard) -> Dataset | None:
            key = self.data or card.dataset.fingerprint, card.image_shape, card.fit, card.labels
            if key not in known:
                try:
                    known[key] = self.dataset(progress, card)
                except (DataError, BenchError) as error:
                    is_own = self.data is None and card.dataset.name != DATASET_NAME
                    if isinstance(error, DataError) and not is_own:
                        raise
                    known[key] = None
                    say(f"{card.name} is skipped: {error}")
            return known[key]

        return find

    def session(self, command: str, digest: str | None = None) -> Session:
        """Return a new session, or with --resume the newest one that has rows of ``digest``."""
        return session_for(
            command, self.results, quick=self.quick, resume=self.resume, digest=digest
        )

    @contextlib.contextmanager
    def setup(
        self,
        models: Sequence[str | None],
        *,
        threads: int = 1,
        device: Device | None = None,
        session_id: str | None = None,
    ) -> Iterator[Setup]:
        """Yield the setup for measuring ``models``, with a progress bar. Its data set is that of
        the first model that has one."""
        store = ModelStore(models_dir())
        with progress_bar() as progress:
            find = self._finder(progress)
            cards = (store.card(name) for name in models if name in store.names())
            first = next(filter(None, map(find, cards)), None)
            yield Setup(
                store,
                self.dataset(progress) if first is None else first,
                self.recorder(session_id),
                opener(device or self.device, threads),
                progress,
                find,
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
    return wanted or default_model(there, likely_device(device, engine())) or there[0]


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
    """Open a model in the engine of ``CIFAR10_ENGINE`` and check its golden answer."""
    options = PredictorOptions(device=device, threads=threads, engine=engine())  # type: ignore[arg-type]
    predictor = Predictor(stored.onnx, options)
    predictor.check_card(stored.card)
    return predictor
