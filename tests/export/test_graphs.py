"""The int8 graph and what is done to a graph before: the same answers, the same contract, in
integers."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from cifar10.dataset import Dataset
from cifar10.store import ModelStore
from export.convert import convert
from export.float16 import convert_fp16
from export.quantize import quantize_int8
from export.rewrite import prepare
from tests.export.graphs import (
    CONTRACT,
    answers,
    contract,
    operators,
    small_convolution,
    what_runs,
)
from training.networks.models import build_model
from training.recipes.own import COMPACT, SIMPLE_CNN, WHITENED_CNN
from training.recipes.schema import Recipe

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def residual(dataset: Dataset) -> onnx.ModelProto:
    """A residual network: batch normalisation, addition, pooling before a 1×1 convolution, the mean
    over all pixels; pixels scaled to −1…1. Its weights are random, its activations normalised."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
    y = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    shortcut = layers.Conv2D(12, 1)(layers.AveragePooling2D(2)(x))
    x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10, bias_initializer="random_normal")(x)
    model = keras.Model(image, layers.Softmax()(x))
    for _ in range(200):
        model(dataset.train.images[:64], training=True)
    return convert(model)


def test_the_prepared_graph_computes_the_same(residual: onnx.ModelProto, dataset: Dataset) -> None:
    prepared, pixels = prepare(residual)
    assert {"AveragePool", "ReduceMean", "MatMul"} <= set(operators(residual))
    assert not {"AveragePool", "ReduceMean", "MatMul"} & set(operators(prepared))
    assert pixels is not None
    assert (pixels.zero_point, pixels.scale) == (127, pytest.approx(1 / 127.5))
    before, after = (answers(model, dataset.test.images) for model in (residual, prepared))
    # The offset of −1 is half a grey level from a whole zero point, which is what the border shows.
    np.testing.assert_allclose(after, before, atol=2e-3)
    assert not np.array_equal(after, before)


def test_a_whole_zero_point_changes_nothing(store: ModelStore, dataset: Dataset) -> None:
    source = onnx.load_from_string(store.load("tiny").onnx)
    prepared, pixels = prepare(source)
    assert pixels is not None
    assert pixels.zero_point == 0
    assert {"Shape", "Reshape", "Concat"} <= set(operators(source))
    assert not {"Shape", "Reshape", "Concat"} & set(operators(prepared))
    images = dataset.test.images
    np.testing.assert_allclose(answers(prepared, images), answers(source, images), atol=1e-6)


def test_another_scaling_of_pixels_is_left_unchanged(dataset: Dataset) -> None:
    """No integer represents their offset, so their scale stays in the graph."""
    graph = small_convolution(offset=-3.0)
    prepared, pixels = prepare(graph)
    assert pixels is None
    images = dataset.test.images
    np.testing.assert_allclose(answers(prepared, images), answers(graph, images), atol=1e-6)
    assert contract(quantize_int8(graph, dataset.train.images)) == CONTRACT


@pytest.mark.parametrize("normalised", ["BatchNormalization", "Mul"])
def test_remaining_batch_normalisation_is_folded(normalised: str, dataset: Dataset) -> None:
    graph = small_convolution(-1.0, normalised=normalised)
    quantized = quantize_int8(graph, dataset.train.images)
    assert not {"BatchNormalization", "Mul"} & set(operators(quantized))
    images = dataset.test.images
    np.testing.assert_allclose(answers(quantized, images), answers(graph, images), atol=0.1)


def test_the_int8_graph_keeps_the_contract(residual: onnx.ModelProto, dataset: Dataset) -> None:
    quantized = quantize_int8(residual, dataset.train.images)
    onnx.checker.check_model(quantized, full_check=True)
    assert contract(quantized) == CONTRACT
    images = dataset.test.images
    whole = answers(quantized, images)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(whole, answers(residual, images), atol=0.1)
    for size in (1, 3, 32):
        np.testing.assert_allclose(answers(quantized, images[:size]), whole[:size], atol=1e-6)


def test_all_but_the_last_operators_run_in_integers(
    residual: onnx.ModelProto, dataset: Dataset, tmp_path: Path
) -> None:
    runs = what_runs(quantize_int8(residual, dataset.train.images), tmp_path)
    assert runs.count("QLinearConv") == 3
    assert "QLinearAdd" in runs
    assert not {"Conv", "FusedConv", "Relu", "Cast", "Mul", "QuantizeLinear"} & set(runs)
    assert runs[-2:] in (["Gemm", "Softmax"], ["FusedGemm", "Softmax"])
    assert runs.count("DequantizeLinear") == 1


def test_the_same_input_gives_the_same_bytes(residual: onnx.ModelProto, dataset: Dataset) -> None:
    first, second = (
        quantize_int8(residual, dataset.train.images).SerializeToString() for _ in range(2)
    )
    assert first == second
    other = quantize_int8(residual, dataset.train.images[:10])
    assert other.SerializeToString() != first  # the calibration images count


def test_a_float16_graph_is_in_order(residual: onnx.ModelProto) -> None:
    known = {"image"}
    graph = convert_fp16(residual).graph
    known |= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        assert known.issuperset(node.input)
        known |= set(node.output)


@pytest.mark.parametrize("recipe", [SIMPLE_CNN, COMPACT, WHITENED_CNN], ids=lambda one: one.name)
def test_every_network_of_our_own_converts_and_quantises(recipe: Recipe, dataset: Dataset) -> None:
    keras.utils.set_random_seed(0)
    model = build_model(recipe)
    graph = convert(model)
    images = dataset.test.images
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(answers(graph, images), expected, atol=1e-4)
    found = answers(quantize_int8(graph, dataset.train.images), images)
    assert np.abs(found - expected).max() < 0.2
