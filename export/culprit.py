"""Find the layer that costs an int8 graph most, which a refusal names as its cause."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cifar10.predictor import Predictor, PredictorOptions
from export.graph import GraphEditor, attributes

IMAGES: Final = 100
"""The graph is run once for each of its layers."""

_CPU: Final = PredictorOptions(device="cpu")


_ACTIVATIONS: Final = ("Relu", "Clip")


@dataclass(frozen=True)
class Culprit:
    """One layer of a graph, quantised alone."""

    layer: str
    """Name of the node."""
    share: float
    """Change of the float graph's probabilities, as a share of that from quantising all layers."""

    def __str__(self) -> str:
        return (
            f"the layer that costs most is {self.layer!r}: quantised alone, it changes the answers "
            f"by {self.share:.0%} of what all layers do"
        )


def find_culprit(
    prepared: onnx.ModelProto, quantized: onnx.ModelProto, images: NDArray[np.uint8]
) -> Culprit | None:
    """Return the layer that changes the answers most when it is quantised alone.

    Args:
        prepared: the float graph that was quantised, without corrected biases, which are wrong for
            unrounded weights.
        quantized: the quantised graph; its nodes and values have the same names.
        images: uint8 (N, H, W, 3); the first :data:`IMAGES` are used.

    Returns:
        None if no layer was quantised or nothing changes.
    """
    images = images[:IMAGES]
    wanted = _answers(prepared, images)
    whole = _difference(quantized, wanted, images)
    alone = {
        layer.name: _difference(changed, wanted, images)
        for layer in GraphEditor(prepared).nodes
        if (changed := _quantised_alone(prepared, quantized, layer)) is not None
    }
    worst = max(alone, key=lambda name: alone[name], default=None)
    if worst is None or not whole or not alone[worst]:
        return None
    return Culprit(worst, alone[worst] / whole)


def _quantised_alone(
    prepared: onnx.ModelProto, quantized: onnx.ModelProto, layer: onnx.NodeProto
) -> onnx.ModelProto | None:
    """Return ``prepared`` with the weights, bias and rounded output that ``layer`` has in
    ``quantized``; None if the layer is in float there."""
    graph, integers = GraphEditor(prepared), GraphEditor(quantized)
    there = next((node for node in integers.nodes if node.name == layer.name), None)
    if layer.op_type not in ("Conv", "Gemm", "MatMul") or there is None:
        return None
    if integers.producer(there.input[1]) is None:
        return None
    here = next(node for node in graph.nodes if node.name == layer.name)
    changed = onnx.NodeProto()
    changed.CopyFrom(here)
    del changed.input[1:]
    for name in there.input[1:]:
        value = _dequantised(integers, name)
        if value is None:
            return None
        changed.input.append(graph.add_constant(f"{here.name}_rounded", value))
    last = graph.reader(here.output[0])
    last = last if last is not None and last.op_type in _ACTIVATIONS else None
    made = here.output[0] if last is None else last.output[0]
    step, zero = (integers.constant(f"{made}_{part}") for part in ("scale", "zero_point"))
    nodes = [changed]
    if last is not None:
        nodes.append(onnx.NodeProto())
        nodes[-1].CopyFrom(last)
    if step is not None and zero is not None:
        nodes[-1].output[0] = f"{made}_whole"
        names = [graph.add_constant(f"{made}_step", step), graph.add_constant(f"{made}_zero", zero)]
        nodes += [
            helper.make_node("QuantizeLinear", [f"{made}_whole", *names], [f"{made}_u8"]),
            helper.make_node("DequantizeLinear", [f"{made}_u8", *names], [made]),
        ]
    graph.replace([here] if last is None else [here, last], nodes)
    return graph.finish()


def _dequantised(integers: GraphEditor, name: str) -> NDArray[np.float32] | None:
    """Return the value of a constant, quantised or not; None if it is not one."""
    node = integers.producer(name)
    if node is None:
        return integers.constant(name)
    stored, scale = (integers.constant(value) for value in node.input[:2])
    if stored is None or scale is None:
        return None
    shape = [1] * stored.ndim
    shape[attributes(node).get("axis", 0)] = -1
    steps = scale.reshape(shape if scale.size > 1 else ())
    result: NDArray[np.float32] = (stored.astype(np.float32) * steps).astype(np.float32)
    return result


def _answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return Predictor(model.SerializeToString(), _CPU).predict(images)


def _difference(
    model: onnx.ModelProto, wanted: NDArray[np.float32], images: NDArray[np.uint8]
) -> float:
    """Return the mean absolute difference of probabilities."""
    return float(np.abs(_answers(model, images) - wanted).mean())
