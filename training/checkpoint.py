"""Checkpoint of an unfinished training, consistent after kill -9 at any time.

``models/<name>/checkpoint/`` holds the model after the latest epoch (weights and optimizer) and
after the best one, and ``state.json``, which names both files with their digests. It is written
last, so the files it names are complete; any other file is a leftover and is removed.
"""

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import keras

from cifar10.card import DatasetRecord, training_fields
from cifar10.errors import RecipeError, StoreError
from cifar10.labels import DATASET_NAME
from cifar10.records import RecordError, from_json, to_json
from cifar10.store import file_sha256, write_atomic
from training.history import EpochRow, best_epoch

SCHEMA_VERSION: Final = 1

_STATE_FILE: Final = "state.json"


@dataclass(frozen=True)
class SavedModel:
    """A model file in the checkpoint's folder."""

    file: str
    sha256: str


@dataclass(frozen=True)
class State:
    """Content of ``state.json``: the progress of a training."""

    schema_version: int
    identity: dict[str, Any]
    """Identity of the training: recipe and data; see :func:`check_identity`."""
    history: tuple[EpochRow, ...]
    resumed: int
    latest: SavedModel
    best: SavedModel


class Checkpoint:
    """The checkpoint under ``folder``, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> State | None:
        """Return the state, or None if nothing was saved yet.

        Raises:
            StoreError: the state or a file it names is damaged; advises a restart.
        """
        try:
            text = (self.folder / _STATE_FILE).read_bytes()
        except FileNotFoundError:
            return None
        try:
            state = from_json(State, text)
        except RecordError as error:
            raise self._damaged(str(error)) from error
        if state.schema_version != SCHEMA_VERSION:
            reason = f"schema version {state.schema_version}, this code reads {SCHEMA_VERSION}"
            raise self._damaged(reason)
        for saved in {state.latest, state.best}:
            path = self.folder / saved.file
            if not path.is_file() or file_sha256(path) != saved.sha256:
                reason = f"{saved.file} is missing or not the file that was written"
                raise self._damaged(reason)
        return state

    def mark_resumed(self, state: State) -> State:
        """Count one more interruption, written to disk immediately so that it cannot be lost."""
        resumed = replace(state, resumed=state.resumed + 1)
        write_atomic(self.folder / _STATE_FILE, to_json(resumed))
        return resumed

    def save(
        self,
        model: keras.Model,
        identity: dict[str, Any],
        history: tuple[EpochRow, ...],
        before: State | None,
    ) -> State:
        """Save ``model`` as it is after the last epoch of ``history``.

        Args:
            before: the state after the previous epoch, None after the first.
        """
        epoch = history[-1].epoch
        path = self.folder / f"epoch_{epoch:04d}.keras"
        latest = SavedModel(path.name, self.write_model(model, path))
        best = latest if before is None or best_epoch(history) == epoch else before.best
        resumed = before.resumed if before is not None else 0
        state = State(SCHEMA_VERSION, identity, history, resumed, latest, best)
        write_atomic(self.folder / _STATE_FILE, to_json(state))
        keep = {_STATE_FILE, latest.file, best.file}
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in keep:
                entry.unlink()
        return state

    def load(self, saved: SavedModel, *, compiled: bool) -> keras.Model:
        """Load a saved model; ``compiled`` includes its optimizer."""
        return keras.saving.load_model(self.folder / saved.file, compile=compiled)

    def write_model(self, model: keras.Model, path: Path) -> str:
        """Write a ``.keras`` file atomically and return its SHA-256.

        It is written inside the checkpoint's folder and then moved to ``path``, so that leftovers
        of a crash are removed with the checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".saving-") as scratch:
            temporary = Path(scratch) / path.name
            model.save(temporary)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            digest = file_sha256(temporary)
            temporary.replace(path)
        return digest

    def remove(self) -> None:
        """Remove the folder, the state first, so that a partial removal is not a damaged
        checkpoint."""
        (self.folder / _STATE_FILE).unlink(missing_ok=True)
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def _damaged(self, reason: str) -> StoreError:
        message = (
            f"the checkpoint in {self.folder} cannot be used: {reason}. "
            "Train from the beginning with --restart."
        )
        return StoreError(message)


def training_identity(
    fields: dict[str, Any],
    seed: int,
    dataset: DatasetRecord,
    random_weights: bool | None,
    precision: str,
) -> dict[str, Any]:
    """Return the fields by which two trainings count as the same.

    ``random_weights`` is None for recipes without a backbone.
    """
    identity = training_fields(fields) | {
        "seed": seed,
        "dataset": {
            key: value for key, value in asdict(dataset).items() if key not in ("source", "name")
        },
    }
    if dataset.name != DATASET_NAME:
        identity["dataset"]["name"] = dataset.name
    if random_weights is not None:
        identity["random_weights"] = random_weights
    if precision != "fp32":
        identity["precision"] = precision
    return identity


def check_identity(where: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise an error unless both identities describe the same training.

    Raises:
        RecipeError: they differ; the message names each difference.
    """
    differences = [
        f"{key} is {found.get(key)!r} there, {asked.get(key)!r} asked for"
        for key in sorted(found.keys() | asked.keys())
        if found.get(key) != asked.get(key)
    ]
    if differences:
        message = (
            f"{where} holds another training: {'; '.join(differences)}. "
            "Ask for the same again, or start anew with --restart (which discards it)."
        )
        raise RecipeError(message)
