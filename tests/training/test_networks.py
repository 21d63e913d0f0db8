"""Tests of networks with a first layer computed from images, and of their training form."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.card import Parameters
from tests.training.tiny import TINY_SCHEDULED, tiny_dataset
from training.networks.models import begin_from_images, build_model, in_plain_layers
from training.networks.normalization import QuickShiftNormalization
from training.networks.patches import patch_axes
from training.networks.whitened import PartialIdentity
from training.recipes.own import COMPACT, SIMPLE_CNN, WHITENED_CNN
from training.recipes.schema import PooledNetwork, Recipe, WhitenedNetwork

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

POOLED = TINY_SCHEDULED
WHITENED = dataclasses.replace(
    TINY_SCHEDULED,
    name="tiny_whitened",
    architecture=WhitenedNetwork(widths=(26, 8)),
    expected_parameters=Parameters(14_802, 14_330, 472),
)
BOTH = pytest.mark.parametrize("recipe", [POOLED, WHITENED], ids=lambda recipe: recipe.name)


def trained(recipe: Recipe) -> keras.Model:
    """Return the network after two training steps on its own first layer."""
    keras.utils.set_random_seed(0)
    dataset = tiny_dataset()
    model = build_model(recipe, for_training=True)
    begin_from_images(model, recipe, dataset.train.images)
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy")
    model.fit(dataset.train.images, dataset.train.labels, batch_size=135, verbose=0)
    return model


@BOTH
def test_the_plain_network_gives_the_trained_one_s_answers(recipe: Recipe) -> None:
    model = trained(recipe)
    shifts = [layer.shift for layer in model.layers if isinstance(layer, QuickShiftNormalization)]
    assert all(np.abs(shift).max() > 0 for shift in shifts)
    images = tiny_dataset().test.images
    plain = in_plain_layers(model, recipe)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    expected = model.predict(images, verbose=0)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(plain.predict(images, verbose=0), expected, atol=1e-5)


@BOTH
def test_the_network_can_be_trained_on_images_of_any_size(recipe: Recipe) -> None:
    model = build_model(recipe, for_training=True)
    for side in (24, 32):
        images = np.zeros((2, side, side, 3), np.uint8)
        assert np.asarray(model(images)).shape == (2, 10)


def test_a_checkpoint_gives_the_quick_layers_back(tmp_path: Path) -> None:
    model = trained(POOLED)
    model.save(tmp_path / "model.keras")
    found = keras.saving.load_model(tmp_path / "model.keras")
    images = tiny_dataset().test.images
    np.testing.assert_array_equal(
        found.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_a_shift_learns_faster_by_the_square_of_its_factor() -> None:
    inputs = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype(np.float32)
    moved = []
    for factor in (1.0, 4.0):
        layer = QuickShiftNormalization(factor)
        model = keras.Sequential([keras.Input((4, 4, 3)), layer])
        model.compile(keras.optimizers.SGD(0.01), "mean_squared_error")
        model.fit(inputs, np.ones_like(inputs), batch_size=8, epochs=1, verbose=0)
        moved.append(layer.plain_weights()[0])
    np.testing.assert_allclose(moved[1], 16 * moved[0], rtol=1e-3)
    assert moved[0].max() > 0


def test_the_first_layer_whitens_the_images() -> None:
    images = tiny_dataset().train.images
    model = build_model(WHITENED, for_training=True)
    begin_from_images(model, WHITENED, images)
    first = keras.Model(model.input, model.get_layer("whitening").output)
    found = np.asarray(first(images)).reshape(-1, 24)
    np.testing.assert_allclose(found[:, 12:], -found[:, :12], atol=1e-4)
    moments = found[:, :12].T @ found[:, :12] / len(found)
    varied = np.diag(moments) > 0.9  # what hardly varies is not blown up
    assert varied.sum() >= 6
    np.testing.assert_allclose(moments[varied][:, varied], np.eye(varied.sum()), atol=0.1)


def test_the_stem_is_initialised_along_the_axes_of_the_patches() -> None:
    images = tiny_dataset().train.images
    model = build_model(POOLED, for_training=True)
    begin_from_images(model, POOLED, images)
    kernel = model.get_layer("stem_convolution").get_weights()[0].reshape(27, 4)
    values, vectors = patch_axes(images, 3)
    assert values[-1] == max(values)
    np.testing.assert_allclose(kernel[:, :2], vectors[:, [-1, -2]], atol=1e-6)
    np.testing.assert_allclose(kernel[:, 2:], -kernel[:, :2])


def test_a_kernel_is_initialised_as_the_identity() -> None:
    kernel = np.asarray(PartialIdentity()((3, 3, 4, 6)))
    values = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype(np.float32)
    found = np.asarray(keras.ops.conv(values, kernel, padding="same"))
    np.testing.assert_allclose(found[..., :4], values, atol=1e-6)
    assert 0 < np.abs(kernel[..., 4:]).max() <= 1 / 6


def test_the_pooled_network_answers_for_both_views() -> None:
    architecture = POOLED.architecture
    assert isinstance(architecture, PooledNetwork)
    mirrored = dataclasses.replace(
        POOLED, architecture=dataclasses.replace(architecture, mirrored=True)
    )
    images = tiny_dataset().test.images
    model = in_plain_layers(trained(mirrored), mirrored)
    turned = np.ascontiguousarray(images[:, :, ::-1])
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, model.predict(turned, verbose=0), atol=1e-5)


@pytest.mark.parametrize("recipe", [SIMPLE_CNN, COMPACT, WHITENED_CNN], ids=lambda one: one.name)
def test_a_finished_model_needs_none_of_our_objects(recipe: Recipe) -> None:
    """The export loads it in a process that imports nothing of this package."""
    assert "training" not in {
        part["module"].split(".")[0] for part in configurations(build_model(recipe).get_config())
    }


def configurations(value: object) -> Iterator[dict[str, str]]:
    """Yield every serialised object in a model's configuration."""
    if isinstance(value, dict):
        if "class_name" in value and isinstance(value.get("module"), str):
            yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from configurations(item)
