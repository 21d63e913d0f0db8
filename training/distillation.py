"""A teacher's answers for the training images: computed once and cached.

The exported teacher runs in ONNX Runtime, so only its ``model.onnx`` is needed. Where Keras runs on
JAX, which cannot export, a teacher that has only been trained answers through Keras. Its answers
are cached in ``<cache>/targets`` under a name that identifies the teacher and the images. The
checksums of zip detect damage.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import TeacherRecord, read_training_record
from cifar10.dataset import Dataset
from cifar10.errors import Cifar10Error, RecipeError
from cifar10.machine import usable_cores
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import (
    KERAS_FILE,
    TRAINING_FILE,
    ModelStore,
    StoredModel,
    file_sha256,
    write_atomic,
)
from training import batches
from training.device_epochs import runs_here
from training.recipes.schema import Distillation, Recipe

_FORMAT_VERSION: Final = 1
_BATCH: Final = 64
_KERAS_BATCH: Final = 512
_KERAS_BLOCK: Final = 8 * _KERAS_BATCH
"""Images per call of Keras' ``predict``, which is slow to start."""
_LEAST: Final = 1e-8
"""Lower bound of probabilities, because log(0) is undefined."""

Told = Callable[[int, int], None]
"""Callback with the number of finished images and the total."""


@dataclass(frozen=True)
class Teacher:
    """A model in the store that teaches a recipe."""

    record: TeacherRecord
    stored: StoredModel | None
    """None if the teacher is trained but not exported."""
    keras_file: Path | None = None
    """Keras file of a teacher that is not exported."""

    def targets(
        self,
        distillation: Distillation,
        dataset: Dataset,
        root: Path,
        progress: Told = lambda done, total: None,
    ) -> NDArray[np.float32]:
        """Return the teacher's part of the targets: float32 (N, L), rows summing to 1.

        Args:
            distillation: settings for softening the answers.
            dataset: data set with the training images.
            root: cache folder for the answers.
            progress: receives the progress.
        """
        key = f"{_FORMAT_VERSION} {self.record.sha256} {dataset.record.fingerprint} "
        key += str(len(dataset.train.labels))
        path = root / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        answers = _read(path, (len(dataset.train.labels), len(dataset.labels)))
        if answers is None:
            answers = self._ask(dataset.train.images, len(dataset.labels), progress)
            buffer = BytesIO()
            np.savez(buffer, answers=answers)
            root.mkdir(parents=True, exist_ok=True)
            write_atomic(path, buffer.getvalue())
        return softened(answers, distillation.temperature)

    def _ask(self, images: NDArray[np.uint8], classes: int, progress: Told) -> NDArray[np.float32]:
        predict, batch_size = self._predictor()
        answers = np.empty((len(images), classes), np.float32)
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            mirrored = np.ascontiguousarray(batch[:, :, ::-1])
            answers[start : start + len(batch)] = (predict(batch) + predict(mirrored)) / 2
            progress(start + len(batch), len(images))
        return answers

    def _predictor(self) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.float32]], int]:
        """Return the prediction function and its batch size."""
        if self.stored is not None:
            options = PredictorOptions(threads=usable_cores())
            return Predictor(self.stored.onnx, options).predict, _BATCH
        import keras

        model = keras.saving.load_model(self.keras_file, compile=False)
        return partial(_through_keras, model), _KERAS_BLOCK


def find_teacher(recipe: Recipe, store: ModelStore) -> Teacher | None:
    """Return the recipe's teacher, or None if it has none.

    Raises:
        RecipeError: the teacher is not in the store, not exported, or not allowed; says how to
            make it.
    """
    if recipe.distillation is None:
        return None
    name = recipe.distillation.teacher
    try:
        stored = store.load(name)
    except Cifar10Error as error:
        trained = _only_trained(store.folder(name)) if runs_here() else None
        if trained is not None:
            return trained
        message = (
            f"recipe {recipe.name!r} learns from {name!r}, which is not in {store.root}: {error} "
            f"Make it: cifar10 train {name} && cifar10 export {name}"
        )
        raise RecipeError(message) from error
    if stored.card.accuracy is None:
        message = f"recipe {recipe.name!r} learns from {name!r}, whose weights are random"
        raise RecipeError(message)
    return Teacher(TeacherRecord(name, stored.card.sha256), stored)


def _only_trained(folder: Path) -> Teacher | None:
    """Return a model that is trained, and whose weights are not random; None where there is
    none."""
    file = folder / KERAS_FILE
    try:
        record = read_training_record((folder / TRAINING_FILE).read_bytes())
        intact = file_sha256(file) == record.keras_sha256
    except (OSError, Cifar10Error):
        return None
    if record.accuracy is None or not intact:
        return None
    return Teacher(TeacherRecord(record.name, record.keras_sha256), None, file)


def _through_keras(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return batches.predict(model, images, _KERAS_BATCH)


def softened(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return probabilities, float32 (N, L), at another temperature; rows sum to 1."""
    raised = np.log(np.maximum(probabilities, _LEAST)) / temperature
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return the cached answers, or None if there are none or they do not match."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            answers: NDArray[np.float32] = kept["answers"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if answers.shape != shape or answers.dtype != np.float32:
        return None
    return answers
