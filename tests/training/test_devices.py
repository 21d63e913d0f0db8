"""A training on several devices gives the model of one device, on JAX; simulated devices here.

Without JAX (``pip install jax``) only the refusal is tested.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.environment import PROJECT_ROOT
from cifar10.errors import RecipeError
from cifar10.store import ModelStore
from tests.training.tiny import TINY, tiny_dataset
from training.device_epochs import DeviceEpochs, devices_for, runs_here
from training.history import EpochRow
from training.observer import Observer
from training.recipes.schema import with_epochs
from training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

on_jax = pytest.mark.skipif(not runs_here(), reason="run by test_on_two_simulated_devices")


@pytest.mark.skipif(runs_here(), reason="Keras runs on JAX")
def test_other_backends_train_on_one_device() -> None:
    assert devices_for(32) == devices_for(32, 1) == 1
    with pytest.raises(RecipeError, match="set KERAS_BACKEND=jax"):
        devices_for(32, 2)


@pytest.mark.skipif(runs_here(), reason="runs in the process that this test starts")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX: pip install jax")
def test_on_two_simulated_devices() -> None:
    """Runs the tests of JAX in a process where Keras runs on it."""
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
    }
    files = ["tests/training/test_devices.py", "tests/training/test_device_epochs.py"]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rf", *files]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


class Stopped(Observer):
    """Observer that ends the training after the second epoch."""

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt


@on_jax
def test_two_devices_train_the_model_of_one() -> None:
    """The statistics of batch normalization are those of the whole batch, dropout is the same, and
    the last step is filled."""
    layers = keras.layers
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (30, 8, 8, 3), np.uint8)
    labels = chance.integers(0, 10, 30)
    trained = []
    for devices in (1, 2):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3), dtype="uint8"),
                layers.Rescaling(1 / 255),
                layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=0)),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dropout(0.2, seed=0),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, activation="softmax", kernel_initializer="zeros"),
            ]
        )
        model.compile(
            keras.optimizers.SGD(0.1, 0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        epochs = DeviceEpochs(model, 8, devices)
        rates = np.full(4, 0.1, np.float32)
        epochs.fit(images, labels, rates)
        figures = epochs.fit(images, labels, rates)
        trained.append((model.get_weights(), figures))
        places = {place for variable in model.variables for place in variable.value.devices()}
        assert len(places) == 1, "between epochs the model is on one device"
    (one, figures_of_one), (two, figures_of_two) = trained
    for ours, expected in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert figures_of_two == pytest.approx(figures_of_one, rel=1e-5)


@on_jax
def test_a_training_continues_on_another_number_of_devices(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tiny_dataset(), store, devices=2, observer=Stopped())
    cost = train(TINY, tiny_dataset(), store, devices=1).record.training
    assert (cost.devices, cost.resumed) == (1, 1)
    cost = train(
        with_epochs(TINY, 1), tiny_dataset(), store, devices=2, restart=True
    ).record.training
    assert (cost.devices, cost.resumed) == (2, 0)


@on_jax
def test_devices_that_cannot_share_a_step_are_refused() -> None:
    assert devices_for(32) == 1, "CPU devices are never taken unasked"
    assert devices_for(32, 2) == 2
    with pytest.raises(RecipeError, match="cannot share a step of 33 images evenly"):
        devices_for(33, 2)
    with pytest.raises(RecipeError, match="3 devices asked for; this machine has 2"):
        devices_for(33, 3)
