"""A teacher's answers for the training images: computed once and cached.

The exported teacher runs in ONNX Runtime, so only its ``model.onnx`` is needed. Its answers are
cached in ``<cache>/targets`` under a name that identifies the teacher and the images. The checksums
of zip detect damage.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import TeacherRecord
from cifar10.dataset import Dataset
from cifar10.errors import Cifar10Error, RecipeError
from cifar10.labels import CLASS_COUNT
from cifar10.machine import usable_cores
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore, StoredModel, write_atomic
from training.recipes.schema import Distillation, Recipe

_FORMAT_VERSION: Final = 1
_BATCH: Final = 64
_LEAST: Final = 1e-8
"""Lower bound of probabilities, because log(0) is undefined."""

Told = Callable[[int, int], None]
"""Callback with the number of finished images and the total."""


@dataclass(frozen=True)
class Teacher:
    """A model in the store that teaches a recipe."""

    record: TeacherRecord
    stored: StoredModel

    def targets(
        self,
        distillation: Distillation,
        dataset: Dataset,
        root: Path,
        progress: Told = lambda done, total: None,
    ) -> NDArray[np.float32]:
        """Return the teacher's part of the targets: float32 (N, 10), rows summing to 1.

        Args:
            distillation: settings for softening the answers.
            dataset: data set with the training images.
            root: cache folder for the answers.
            progress: receives the progress.
        """
        key = f"{_FORMAT_VERSION} {self.record.sha256} {dataset.record.fingerprint} "
        key += str(len(dataset.train.labels))
        path = root / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        answers = _read(path, len(dataset.train.labels))
        if answers is None:
            answers = self._ask(dataset.train.images, progress)
            buffer = BytesIO()
            np.savez(buffer, answers=answers)
            root.mkdir(parents=True, exist_ok=True)
            write_atomic(path, buffer.getvalue())
        return softened(answers, distillation.temperature)

    def _ask(self, images: NDArray[np.uint8], progress: Told) -> NDArray[np.float32]:
        options = PredictorOptions(threads=usable_cores())
        predictor = Predictor(self.stored.onnx, options)
        answers = np.empty((len(images), CLASS_COUNT), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            mirrored = np.ascontiguousarray(batch[:, :, ::-1])
            both = predictor.predict(batch) + predictor.predict(mirrored)
            answers[start : start + len(batch)] = both / 2
            progress(start + len(batch), len(images))
        return answers


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
        message = (
            f"recipe {recipe.name!r} learns from {name!r}, which is not in {store.root}: {error} "
            f"Make it: cifar10 train {name} && cifar10 export {name}"
        )
        raise RecipeError(message) from error
    if stored.card.accuracy is None:
        message = f"recipe {recipe.name!r} learns from {name!r}, whose weights are random"
        raise RecipeError(message)
    return Teacher(TeacherRecord(name, stored.card.sha256), stored)


def softened(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return probabilities, float32 (N, 10), at another temperature; rows sum to 1."""
    raised = np.log(np.maximum(probabilities, _LEAST)) / temperature
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    """Return the cached answers, or None if there are none or they do not match."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            answers: NDArray[np.float32] = kept["answers"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if answers.shape != (count, CLASS_COUNT) or answers.dtype != np.float32:
        return None
    return answers
