"""An epoch as one program on the device is what Keras' own ``fit`` makes of it, on JAX.

``KERAS_BACKEND=jax pytest tests/training/test_device_epochs.py``, in an environment with JAX.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cifar10.errors import RecipeError
from cifar10.store import ModelStore
from tests.training.tiny import TINY, TINY_SCHEDULED, tiny_dataset
from training.callbacks import LearningRate
from training.device_epochs import DeviceEpochs, runs_here
from training.history import EpochRow
from training.networks.models import build_model, compile_model
from training.observer import Observer
from training.recipes.schema import Distillation, Recipe, with_epochs
from training.run import train

pytestmark = [
    pytest.mark.skipif(
        not runs_here(), reason=f"Keras runs on {keras.backend.backend()}; needs KERAS_BACKEND=jax"
    ),
    # Keras, not ours: it copies arrays in NumPy's old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

BATCH = 48
DATASET = tiny_dataset()
IMAGES, LABELS = DATASET.train.images, DATASET.train.labels


def fresh(recipe: Recipe) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_model(recipe, for_training=True)
    compile_model(model, recipe.phases[0])
    return model


def close(ours: keras.Model, theirs: keras.Model) -> None:
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(one.value), np.asarray(other.value), atol=1e-3)


def expected_fit(model: keras.Model, images: Any, labels: Any) -> dict[str, float]:
    history = model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


@pytest.mark.parametrize("recipe", [TINY, TINY_SCHEDULED], ids=lambda recipe: recipe.name)
def test_two_epochs_equal_those_of_keras_fit(recipe: Recipe) -> None:
    count = 4 * BATCH
    ours, theirs = fresh(recipe), fresh(recipe)
    rate = float(theirs.optimizer.learning_rate.value)
    epochs = DeviceEpochs(ours, BATCH)
    for _ in range(2):
        found = epochs.fit(IMAGES[:count], LABELS[:count], np.full(4, rate, np.float32))
        expected = expected_fit(theirs, IMAGES[:count], LABELS[:count])
        assert found == pytest.approx(expected, rel=1e-4)
    close(ours, theirs)


def test_the_last_step_is_filled_with_the_first_images() -> None:
    count = 3 * BATCH + 7
    filled = np.arange(4 * BATCH) % count
    ours, theirs = fresh(TINY), fresh(TINY)
    rates = np.full(4, TINY.phases[0].learning_rate, np.float32)
    found = DeviceEpochs(ours, BATCH).fit(IMAGES[:count], LABELS[:count], rates)
    assert found == pytest.approx(expected_fit(theirs, IMAGES[filled], LABELS[filled]), rel=1e-4)
    close(ours, theirs)


def test_each_step_has_its_own_learning_rate() -> None:
    """In Keras' own fit on JAX, the callback's assignments have no effect."""
    phase = TINY_SCHEDULED.phases[0]
    rates = LearningRate(phase, 4, 16).of_epoch(4)
    assert len(set(rates)) == 4
    ours, theirs = fresh(TINY_SCHEDULED), fresh(TINY_SCHEDULED)
    DeviceEpochs(ours, BATCH).fit(IMAGES[: 4 * BATCH], LABELS[: 4 * BATCH], rates)
    for step, rate in enumerate(rates):
        theirs.optimizer.learning_rate.assign(rate)
        some = slice(step * BATCH, (step + 1) * BATCH)
        theirs.train_on_batch(IMAGES[some], LABELS[some])
    close(ours, theirs)
    with pytest.raises(ValueError, match="4 learning rates for an epoch of 5 steps"):
        DeviceEpochs(ours, BATCH).fit(IMAGES[: 4 * BATCH + 1], LABELS[: 4 * BATCH + 1], rates)


class Crash(BaseException):
    """End of the process."""


class Stopped(Observer):
    """Observer that ends the training after the second epoch."""

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        if row.epoch == 2:
            raise Crash


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, stopped = ModelStore(tmp_path / "whole"), ModelStore(tmp_path / "stopped")
    train(TINY_SCHEDULED, DATASET, whole)
    with pytest.raises(Crash):
        train(TINY_SCHEDULED, DATASET, stopped, observer=Stopped())
    record = train(TINY_SCHEDULED, DATASET, stopped).record
    assert (record.training.resumed, record.training.epochs) == (1, 4)
    names = [store.folder(TINY_SCHEDULED.name) / "model.keras" for store in (stopped, whole)]
    found, expected = (keras.saving.load_model(name).get_weights() for name in names)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_teacher_that_is_not_exported_runs_in_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "cache"))
    store = ModelStore(tmp_path)
    recipe = dataclasses.replace(
        with_epochs(TINY_SCHEDULED, 1),
        name="tiny_taught",
        distillation=Distillation(teacher="tiny", share=0.75, temperature=1.0),
    )
    with pytest.raises(RecipeError, match="cifar10 train tiny"):
        train(recipe, DATASET, store)
    teacher = train(with_epochs(TINY, 1), DATASET, store).record
    record = train(recipe, DATASET, store).record
    assert record.teacher is not None
    assert record.teacher.sha256 == teacher.keras_sha256
    (kept,) = (tmp_path / "cache" / "targets").iterdir()
    answers = np.load(kept)["answers"]
    model = keras.saving.load_model(store.folder("tiny") / "model.keras", compile=False)
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    expected = (model.predict(IMAGES, verbose=0) + model.predict(mirrored, verbose=0)) / 2
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_bf16_is_recorded_and_leaves_a_float32_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    record = train(TINY_SCHEDULED, DATASET, store, precision="bf16").record
    assert record.training.precision == "bf16"
    model = keras.saving.load_model(store.folder(TINY_SCHEDULED.name) / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert math.isfinite(record.accuracy.test.accuracy if record.accuracy else math.nan)
    with pytest.raises(RecipeError, match="precision is 'bf16' there, None asked for"):
        train(TINY_SCHEDULED, DATASET, store)
