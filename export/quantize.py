"""Static int8: activations u8, weights s8 per channel, in the QDQ form that ONNX Runtime fuses.

The softmax and the last dense layer stay in float: a few thousand multiplications that decide
between classes. Of the options of ``onnxruntime.quantization`` these were the fastest on a residual
network on x86 (one image, one thread): signed activations took 2.3 times as long as unsigned ones,
because their nodes are not fused, and symmetric ones 1.4 times, because the ReLU is not fused.

Weights have 7 bits. With 8, sums of two u8 × s8 products saturate on x86 processors without VNNI
(many before 2019, and some later ones), which changes answers: on such a processor, MobileNetV2 at
96 px gave another class than in float to 34 of 100 images with 8 bits, and to 7 to 13 with 8-bit
arithmetic that does not saturate. Depthwise convolutions have 8 bits, because ONNX Runtime
multiplies those in 16 bits. Biases are corrected for the mean rounding error of each channel
(:mod:`export.bias`): without that, 7 bits cost MobileNetV2 15 points, with it half a point
(docs/experiments.md).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from cifar10.contract import INPUT, OUTPUT
from cifar10.errors import ExportError
from export.batches import batch_size
from export.bias import correct_biases
from export.culprit import Culprit, find_culprit
from export.graph import GraphEditor, attributes
from export.rewrite import IntegerInput, prepare

CALIBRATION_IMAGES: Final = 1_000

METHOD: Final = (
    "static QDQ int8 by onnxruntime.quantization: activations u8, weights s8 per output channel (7 "
    "bits, depthwise 8), biases corrected for what rounding weights does to each channel's mean, "
    "ranges by the least and the greatest value; the last dense layer and the softmax in float32"
)

_BATCH_SIZE: Final = 100
_DENSE: Final = ("Gemm", "MatMul")
_LARGE: Final = 100_000
"""Number of weights from which a dense layer is quantised even if other layers follow."""

_GREATEST: Final = 64
"""Greatest integer of a 7-bit weight, as ``onnxruntime.quantization`` scales them."""
_GREATEST_DEPTHWISE: Final = 127


class _Images(CalibrationDataReader):  # type: ignore[misc]  # untyped
    def __init__(self, images: NDArray[np.uint8]) -> None:
        size = batch_size(images, _BATCH_SIZE)
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[start : start + size] for start in range(0, len(images), size)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch as the session's inputs; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT.name: batch}


def quantize_int8(model: onnx.ModelProto, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """Quantise a float graph. The same graph and images always give the same bytes.

    Args:
        model: exported model: uint8 ``image`` in, float32 ``probabilities`` out.
        images: training images, uint8 (N, H, W, 3), RGB; the first :data:`CALIBRATION_IMAGES`
            determine the ranges of activations and the corrections of biases.

    Returns:
        A graph with the same input and output.

    Raises:
        ExportError: ONNX Runtime cannot quantise it, or the result does not pass ONNX's checks.
    """
    images = images[:CALIBRATION_IMAGES]
    prepared, pixels = prepare(_folded(model))
    in_float = _last_layers(prepared)
    prepared = correct_biases(prepared, images, _greatest_weights(prepared, in_float))
    overrides: dict[str, Any] = {
        node.input[1]: [{"axis": 0, "reduce_range": False}]
        for node in prepared.graph.node
        if _is_depthwise(node)
    }
    if pixels is not None:
        in_float += pixels.nodes
        overrides[pixels.output] = [
            {
                "scale": np.array(pixels.scale, np.float32),
                "zero_point": np.array(pixels.zero_point, np.uint8),
            }
        ]
    # Tells the quantiser that the graph was prepared; it would warn otherwise.
    helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        try:
            quantize_static(
                prepared,
                path,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=list(in_float),
                extra_options={"TensorQuantOverrides": overrides},
            )
        except Exception as error:  # it raises exceptions of many types
            message = f"ONNX Runtime cannot quantise the graph: {error}"
            raise ExportError(message) from error
        quantized = GraphEditor(onnx.load(path))
    if pixels is not None:
        _read_pixels(quantized, pixels)
    return quantized.finish()


def find_int8_culprit(
    model: onnx.ModelProto, quantized: onnx.ModelProto, images: NDArray[np.uint8]
) -> Culprit | None:
    """Return the layer that causes most of the error of ``quantized``, which
    :func:`quantize_int8` made of ``model`` with the same images; None if no layer does alone."""
    prepared, _ = prepare(_folded(model))
    return find_culprit(prepared, quantized, images)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with batch normalisation folded into its convolutions.

    ONNX Runtime's basic optimisations do that, also for the multiplication and addition to which
    tf2onnx converts batch normalisation. Between the two, the ranges of channels differ widely, but
    a tensor has one range: MobileNetV2, whose depthwise convolutions tf2onnx does not fold, lost
    twice as much accuracy. A model without such pairs is returned as it is.
    """
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    if all(
        node.op_type != "BatchNormalization"
        and not (node.op_type == "Mul" and "Conv" in {made_by.get(name) for name in node.input})
        for node in model.graph.node
    ):
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of ONNX Runtime's own, with no common ancestor
            message = f"ONNX Runtime cannot load the graph: {error}"
            raise ExportError(message) from error
        return onnx.load(path)


def _greatest_weights(model: onnx.ModelProto, in_float: tuple[str, ...]) -> dict[str, int]:
    """Return the greatest integer of the weights of each layer that is quantised, by the node's
    name."""
    return {
        node.name: _GREATEST_DEPTHWISE if _is_depthwise(node) else _GREATEST
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and node.name not in in_float
    }


def _is_depthwise(node: onnx.NodeProto) -> bool:
    """Whether each channel is convolved alone; no network here has groups of several."""
    return node.op_type == "Conv" and bool(attributes(node).get("group", 1) > 1)


def _last_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes that stay in float: the softmax, and the dense layer before it.

    If other nodes come before it, as in a graph that groups the classes of a larger classifier, all
    nodes after the last pooling or large dense layer stay in float.
    """
    graph = GraphEditor(model)
    softmax = graph.producer(OUTPUT.name)
    if softmax is None or softmax.op_type != "Softmax":
        return ()
    found = [softmax.name]
    waiting = [graph.producer(value) for value in softmax.input]
    while waiting:
        node = waiting.pop()
        if node is None or node.name in found or _is_body(graph, node):
            continue
        found.append(node.name)
        if len(found) > 2 or node.op_type not in _DENSE:
            waiting += [graph.producer(value) for value in node.input]
    return tuple(reversed(found))


def _is_body(graph: GraphEditor, node: onnx.NodeProto) -> bool:
    """Whether a node is quantised: a convolution, a pooling, a large dense layer."""
    if node.op_type not in _DENSE:
        return node.op_type in ("Conv", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
    weights = graph.constant(node.input[1])
    return weights is not None and weights.size >= _LARGE


def _read_pixels(graph: GraphEditor, pixels: IntegerInput) -> None:
    """Connect the first convolution to the image's bytes.

    Quantising ``scale × (pixel − zero)`` with the same scale and zero point gives the pixel back,
    so both steps are removed.
    """
    by_name = {node.name: node for node in graph.nodes}
    quantize = graph.reader(pixels.output)
    dequantize = graph.reader(quantize.output[0]) if quantize is not None else None
    if quantize is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
        message = f"the quantised graph does not read {pixels.output!r} as expected"
        raise ExportError(message)
    graph.replace(
        [*(by_name[name] for name in pixels.nodes), quantize, dequantize],
        [
            helper.make_node(
                "Transpose", [pixels.pixels], ["pixels_nchw"], "pixels_nchw", perm=[0, 3, 1, 2]
            ),
            helper.make_node(
                "DequantizeLinear",
                ["pixels_nchw", *dequantize.input[1:]],
                dequantize.output,
                dequantize.name,
            ),
        ],
    )
