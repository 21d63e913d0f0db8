"""Tests of bias correction: channel means are kept, and no processor saturates."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cifar10.dataset import Dataset
from cifar10.errors import ExportError
from export.bias import correct_biases, rounded
from export.quantize import find_int8_culprit, quantize_int8
from tests.export.graphs import answers

LAYERS = ("first", "depthwise", "last")


def depthwise_network() -> onnx.ModelProto:
    """Three convolutions, the second depthwise, whose filters hold one weight that is twenty times
    as large as the others, as MobileNetV2's do; the mean over all pixels, a dense layer."""
    random = np.random.default_rng(0)
    channels = 16
    depthwise = random.uniform(0.2, 0.3, (channels, 1, 3, 3)).astype(np.float32)
    depthwise[:, 0, 1, 1] = -6.0
    constants = {
        "scale": np.float32(1 / 255),
        "filters_1": random.uniform(0, 0.1, (channels, 3, 3, 3)),
        "filters_2": depthwise,
        "bias_2": np.full(channels, 3.0),
        "filters_3": random.normal(0, 0.3, (channels, channels, 1, 1)),
        "dense": random.normal(0, 1.0, (channels, 10)),
        "dense_bias": np.zeros(10),
    }
    value = helper.make_tensor_value_info
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["image"], ["cast"], "cast", to=TensorProto.FLOAT),
            node("Mul", ["cast", "scale"], ["scaled"], "mul"),
            node("Transpose", ["scaled"], ["nchw"], "transpose", perm=[0, 3, 1, 2]),
            node("Conv", ["nchw", "filters_1"], ["c1"], "first", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"], "relu_1"),
            node(
                "Conv", ["r1", "filters_2", "bias_2"], ["c2"], "depthwise",
                pads=[1, 1, 1, 1], group=channels,
            ),
            node("Relu", ["c2"], ["r2"], "relu_2"),
            node("Conv", ["r2", "filters_3"], ["c3"], "last"),
            node("GlobalAveragePool", ["c3"], ["pooled"], "pool"),
            node("Flatten", ["pooled"], ["flat"], "flatten"),
            node("Gemm", ["flat", "dense", "dense_bias"], ["logits"], "dense"),
            node("Softmax", ["logits"], ["probabilities"], "softmax"),
        ],
        "depthwise",
        [value("image", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [value("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.asarray(array, np.float32), name)
            for name, array in constants.items()
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def with_rounded_weights(model: onnx.ModelProto, levels: dict[str, int]) -> onnx.ModelProto:
    """Return the float graph with the weights that int8 will have."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.name in levels:
            weight = numpy_helper.to_array(tensors[node.input[1]])
            new = numpy_helper.from_array(rounded(weight, 0, levels[node.name]), node.input[1])
            tensors[node.input[1]].CopyFrom(new)
    return result


def mean_of(model: onnx.ModelProto, name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean of each channel of a value, over all images and positions."""
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        more.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([name], {"image": images})
    mean: NDArray[np.float32] = np.asarray(found).mean(axis=(0, 2, 3))
    return mean


def test_weights_are_rounded_by_channel() -> None:
    weight = np.array([[1.0, 0.3], [0.0, 0.0], [-0.1, 0.02]], np.float32)
    expected = [[1.0, 19 / 64], [0.0, 0.0], [-0.1, 0.1 * 13 / 64]]
    np.testing.assert_allclose(rounded(weight, 0, 64), expected, atol=1e-7)
    np.testing.assert_allclose(rounded(weight.T, 1, 64), np.transpose(expected), atol=1e-7)


@pytest.mark.parametrize("layer", ["depthwise", "last"])
def test_the_mean_of_each_channel_is_kept(layer: str, dataset: Dataset) -> None:
    model = depthwise_network()
    images = dataset.train.images[:100]
    levels = {layer: 7}  # few levels: a large error
    value = {"depthwise": "c2", "last": "c3"}[layer]
    wanted = mean_of(model, value, images)
    before = mean_of(with_rounded_weights(model, levels), value, images)
    corrected = with_rounded_weights(correct_biases(model, images, levels), levels)
    after = mean_of(corrected, value, images)
    assert np.abs(before - wanted).max() > 0.02
    np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_what_is_not_quantised_keeps_its_bias(dataset: Dataset) -> None:
    model = depthwise_network()
    images = dataset.train.images[:20]
    same = correct_biases(model, images, {})
    np.testing.assert_array_equal(answers(same, images), answers(model, images))


def test_a_graph_that_cannot_run_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(ExportError, match="cannot run the graph"):
        correct_biases(depthwise_network(), dataset.train.images[..., :2], {"last": 64})


def test_depthwise_filters_with_an_outlier_survive_int8(dataset: Dataset) -> None:
    model = depthwise_network()
    quantized = quantize_int8(model, dataset.train.images)
    images = dataset.test.images
    np.testing.assert_allclose(answers(quantized, images), answers(model, images), atol=0.03)


def test_a_layer_whose_bias_was_corrected_is_not_the_culprit(dataset: Dataset) -> None:
    """What rounding does to the depthwise filters is taken off the bias; the last convolution's
    first channel, which nothing reads, is what coarsens the steps of all others."""
    model = depthwise_network()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, factor in (("filters_3", 12.0), ("dense", 0.0)):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[0] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    images = dataset.train.images[:40]
    culprit = find_int8_culprit(model, quantize_int8(model, images), images)
    assert culprit is not None
    assert culprit.layer == "last"


def test_no_sum_saturates(dataset: Dataset) -> None:
    """Fused into integer kernels, the graph answers as each node for itself does in float: on x86
    without VNNI, sums of two products saturate at 16 bits."""
    quantized = quantize_int8(depthwise_network(), dataset.train.images)
    for tensor in quantized.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            weight = numpy_helper.to_array(tensor).astype(int)
            depthwise = weight.ndim == 4 and weight.shape[1] == 1
            assert np.abs(weight).max() <= (127 if depthwise else 64)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    unfused = onnxruntime.InferenceSession(
        quantized.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    images = dataset.test.images
    (expected,) = unfused.run(None, {"image": images})
    np.testing.assert_allclose(answers(quantized, images), expected, atol=0.02)
