"""Correct a graph's biases for the mean error that rounding its weights will cause.

Rounding a filter's weights shifts the mean of its output channel. Where the weights of one filter
differ widely, as in MobileNetV2's depthwise convolutions, these shifts are most of the loss of
int8. Their expected value, measured on calibration images, is subtracted from the bias (Nagel et
al., arXiv 1906.04721, section 4.2; docs/experiments.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from cifar10.contract import INPUT
from cifar10.errors import ExportError
from export.batches import batch_size
from export.graph import GraphEditor, attributes

_BATCH_SIZE: Final = 50


@dataclass(frozen=True)
class Shift:
    """Effect of rounding one layer's weights."""

    node: str
    mean: NDArray[np.float32]
    """Shift of each output channel, averaged over positions and images; (channels,)."""


def correct_biases(
    model: onnx.ModelProto, images: NDArray[np.uint8], levels: Mapping[str, int]
) -> onnx.ModelProto:
    """Return a copy of ``model`` with biases corrected for weights rounded per output channel.

    Args:
        model: a float graph whose input is called ``image``.
        images: images to take the means over, uint8 (N, H, W, 3).
        levels: node name → greatest integer of its weights (127 at 8 bits, 64 at 7). Other nodes
            keep float weights.

    Raises:
        ExportError: ONNX Runtime cannot run the graph.
    """
    graph = GraphEditor(model)
    layers = [
        node
        for node in graph.nodes
        if node.op_type in ("Conv", "Gemm")
        and node.name in levels
        and graph.constant(node.input[1]) is not None
        and (len(node.input) < 3 or graph.constant(node.input[2]) is not None)
    ]
    for node, shift in zip(layers, _shifts(model, layers, images, levels), strict=True):
        before = graph.constant(node.input[2]) if len(node.input) > 2 else None
        bias = (-shift.mean if before is None else before - shift.mean).astype(np.float32)
        name = graph.add_constant(f"{node.name}_corrected_bias", bias)
        inputs = [*node.input[:2], name]
        del node.input[:]
        node.input.extend(inputs)
    return graph.finish()


def rounded(weight: NDArray[np.float32], axis: int, levels: int) -> NDArray[np.float32]:
    """Return ``weight`` quantised and dequantised, symmetrically, with one scale for each channel.

    Args:
        weight: weights of any shape.
        axis: axis of the output channels.
        levels: greatest integer of a quantised weight.
    """
    others = tuple(number for number in range(weight.ndim) if number != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(levels)
    scale = np.where(scale > 0, scale, np.float32(1))
    result: NDArray[np.float32] = (np.rint(weight / scale) * scale).astype(np.float32)
    return result


def _shifts(
    model: onnx.ModelProto,
    layers: list[onnx.NodeProto],
    images: NDArray[np.uint8],
    levels: Mapping[str, int],
) -> list[Shift]:
    """Run the graph with a second copy of each layer that has only the rounding errors as weights,
    and no bias."""
    graph = GraphEditor(model)
    added: list[onnx.NodeProto] = []
    outputs = []
    for number, layer in enumerate(layers):
        weight = graph.constant(layer.input[1])
        if weight is None:  # cannot happen: such layers were left out
            continue
        found = attributes(layer)
        axis = 1 if layer.op_type == "Gemm" and not found.get("transB", 0) else 0
        errors = graph.add_constant(
            f"rounding_{number}", rounded(weight, axis, levels[layer.name]) - weight
        )
        moved = helper.make_node(
            layer.op_type, [layer.input[0], errors], [f"moved_{number}"], f"moved_{number}"
        )
        moved.attribute.extend(layer.attribute)
        axes = graph.add_constant(
            f"axes_{number}", np.array([0] if layer.op_type == "Gemm" else [0, 2, 3], np.int64)
        )
        outputs.append(f"shift_{number}")
        mean = helper.make_node(
            "ReduceMean", [f"moved_{number}", axes], [outputs[-1]], outputs[-1], keepdims=0
        )
        added += [moved, mean]
    means = _run(graph.extended(added, outputs), outputs, images)
    return [Shift(layer.name, mean) for layer, mean in zip(layers, means, strict=True)]


def _run(
    model: onnx.ModelProto, outputs: list[str], images: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    """Return the mean of each output over all images; each is a mean over a batch."""
    if not outputs:
        return []
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        sums: list[Any] = [0.0] * len(outputs)
        size = batch_size(images, _BATCH_SIZE)
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            for number, mean in enumerate(session.run(outputs, {INPUT.name: batch})):
                sums[number] = sums[number] + mean * (len(batch) / len(images))
    except Exception as error:  # of ONNX Runtime's own, with no common ancestor
        message = f"ONNX Runtime cannot run the graph: {error}"
        raise ExportError(message) from error
    return sums
