"""Tests of a model that classifies an image and its mirror image: Keras, ONNX, int8."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cifar10.dataset import Dataset
from cifar10.errors import RecipeError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from export.convert import convert
from export.macs import count_macs
from export.quantize import quantize_int8
from export.run import export_model
from tests.training.tiny import TINY_SCHEDULED
from training.networks.models import build_model
from training.recipes.schema import PooledNetwork, Recipe
from training.run import train

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = PredictorOptions(device="cpu")


def mirrored_recipe(shift: int = 0) -> Recipe:
    architecture = TINY_SCHEDULED.architecture
    assert isinstance(architecture, PooledNetwork)
    return dataclasses.replace(
        TINY_SCHEDULED,
        name="mirrored",
        architecture=dataclasses.replace(architecture, mirrored=True, mirror_shift=shift),
    )


@pytest.fixture(scope="module")
def models(dataset: Dataset) -> tuple[keras.Model, keras.Model]:
    """Return models with the same weights, with and without the mirror image."""
    keras.utils.set_random_seed(0)
    alone = build_model(TINY_SCHEDULED)
    for _ in range(100):  # or the activations would be nowhere near normalised
        alone(dataset.train.images[:64], training=True)
    both = build_model(mirrored_recipe())
    both.set_weights(alone.get_weights())
    return both, alone


def test_the_answer_is_computed_from_the_mean_of_both_views(
    models: tuple[keras.Model, keras.Model], dataset: Dataset
) -> None:
    both, alone = models
    images = dataset.test.images
    turned = np.ascontiguousarray(images[:, :, ::-1])
    found = both.predict(images, verbose=0)
    np.testing.assert_allclose(found, both.predict(turned, verbose=0), atol=1e-5)
    # A dense layer on the mean of what is pooled: the mean of the logarithms, up to a constant.
    mean = (np.log(alone.predict(images, verbose=0)) + np.log(alone.predict(turned, verbose=0))) / 2
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - alone.predict(images, verbose=0)).max() > 1e-3


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_the_mirror_image_can_be_shifted(
    models: tuple[keras.Model, keras.Model], dataset: Dataset, shift: int
) -> None:
    """The shift is up and to the left, with reflected edges, in Keras, ONNX and int8."""
    alone = models[1]
    moved = build_model(mirrored_recipe(shift))
    moved.set_weights(alone.get_weights())
    images = dataset.test.images
    around = ((0, 0), (0, shift), (0, shift), (0, 0))
    turned = np.pad(images[:, :, ::-1], around, mode="reflect")[:, shift:, shift:]
    mean = (np.log(alone.predict(images, verbose=0)) + np.log(alone.predict(turned, verbose=0))) / 2
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(moved.predict(images, verbose=0), expected, atol=1e-5)
    graph = convert(moved)
    quantized = quantize_int8(graph, dataset.train.images)
    assert "Cast" not in [node.op_type for node in quantized.graph.node]
    for model, tolerance in ((graph, 1e-5), (quantized, 0.1)):
        found = Predictor(model.SerializeToString(), CPU).predict(images)
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_the_mirror_image_cannot_be_shifted_the_other_way() -> None:
    with pytest.raises(RecipeError, match="pixels at least 0"):
        mirrored_recipe(-1)


def test_mirroring_doubles_the_convolutions_and_adds_no_parameters(
    models: tuple[keras.Model, keras.Model],
) -> None:
    both, alone = models
    assert both.count_params() == alone.count_params()
    dense = 8 * 10
    assert count_macs(convert(both)) - dense == 2 * (count_macs(convert(alone)) - dense) > 0


def test_the_mirrored_graph_runs_in_integers_from_the_pixels_on(
    models: tuple[keras.Model, keras.Model], dataset: Dataset
) -> None:
    graph = convert(models[0])
    quantized = quantize_int8(graph, dataset.train.images)
    onnx.checker.check_model(quantized, full_check=True)
    operators = [node.op_type for node in quantized.graph.node]
    assert "Cast" not in operators  # the first convolution reads the image's own bytes
    joined = next(node for node in quantized.graph.node if node.op_type == "Concat")
    types = {value.name: value.type.tensor_type.elem_type for value in quantized.graph.value_info}
    assert types[joined.output[0]] == TensorProto.UINT8
    images = dataset.test.images
    whole, integers = (
        Predictor(model.SerializeToString(), CPU).predict(images) for model in (graph, quantized)
    )
    np.testing.assert_allclose(integers, whole, atol=0.1)
    for size in (1, 3, 32):
        found = Predictor(quantized.SerializeToString(), CPU).predict(images[:size])
        np.testing.assert_allclose(found, integers[:size], atol=1e-6)


def test_training_uses_one_view_and_the_saved_model_both(tmp_path: Path, dataset: Dataset) -> None:
    """The recorded accuracy is that of the saved model."""
    store = ModelStore(tmp_path)
    record = train(mirrored_recipe(), dataset, store).record
    model = keras.saving.load_model(store.folder("mirrored") / "model.keras")
    images = dataset.test.images
    found = model.predict(images, verbose=0)
    turned = model.predict(np.ascontiguousarray(images[:, :, ::-1]), verbose=0)
    np.testing.assert_allclose(found, turned, atol=1e-5)
    assert record.accuracy is not None
    for split, accuracy in (
        (dataset.train, record.accuracy.train),
        (dataset.validation, record.accuracy.validation),
        (dataset.test, record.accuracy.test),
    ):
        right = int((model.predict(split.images, verbose=0).argmax(1) == split.labels).sum())
        assert accuracy.correct == right
    card = export_model("mirrored", store, dataset)  # refuses a graph that answers otherwise
    assert card.parity.top1_agreement == 1.0
