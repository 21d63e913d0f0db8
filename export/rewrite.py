"""Rewrite a float graph into an equivalent one that integer kernels run fast.

Each rewrite was chosen by timing ONNX Runtime's CPU kernels on single images:

- pixels scaled by ``Cast → Mul → Add``: the scale and the offset become those of the quantised
  input, so that the first convolution reads the image's own bytes;
- average pooling before a 1×1 convolution: one convolution with the pooling in its weights, because
  integer average pooling is slower than float;
- the mean over all pixels, written as ``Transpose → ReduceMean``: ``GlobalAveragePool``, which has
  an integer kernel;
- a dense layer, written as ``MatMul → Add``: ``Gemm``, which adds its bias in 32 bits;
- flattening, with the batch size taken from the shape in seven nodes: ``Flatten``.

Remaining batch normalisation is folded into the convolutions by ONNX Runtime; the converter has
folded most of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cifar10.contract import INPUT
from export.graph import GraphEditor, attributes

_ROUNDING: Final = 1e-4
"""Allowed float32 rounding of an offset, in grey levels."""

_MOST_POOLED: Final = 4
"""Maximum number of pixels in a pooling window that is merged into a convolution's weights."""

_NCHW_TO_NHWC: Final = [0, 2, 3, 1]
_NHWC_TO_NCHW: Final = [0, 3, 1, 2]


@dataclass(frozen=True)
class IntegerInput:
    """Chain from the pixels to the first convolution: ``scale × (pixel − zero)``."""

    pixels: str
    """Name of the chain's input: the image, or the image and its mirror image as one batch."""
    nodes: tuple[str, ...]
    """Names of the nodes, from the cast to the transpose."""
    output: str
    """Output of the chain: float (N, 3, 32, 32), the convolution's input."""
    scale: float
    zero_point: int
    """Zero point, 0–255."""


def prepare(model: onnx.ModelProto) -> tuple[onnx.ModelProto, IntegerInput | None]:
    """Rewrite a copy of ``model``.

    Returns:
        The copy, and its input's chain, or None if the graph does not start with a scale and offset
        that the integers of a quantised tensor can express.

    Raises:
        ExportError: the rewritten graph does not pass ONNX's own checks.
    """
    graph = GraphEditor(model)
    for node in graph.nodes:
        if node.op_type == "AveragePool":
            _pool_by_convolution(graph, node)
        elif node.op_type == "ReduceMean":
            _mean_by_pooling(graph, node)
        elif node.op_type == "MatMul":
            _dense_by_gemm(graph, node)
        elif node.op_type == "Reshape":
            _reshape_by_flatten(graph, node)
    chain = _integer_input(graph)
    return graph.finish(), chain


def _pool_by_convolution(graph: GraphEditor, pool: onnx.NodeProto) -> None:
    convolution = graph.reader(pool.output[0])
    if convolution is None or convolution.op_type != "Conv":
        return
    weight = graph.constant(convolution.input[1])
    found, of_convolution = attributes(pool), attributes(convolution)
    window = list(found["kernel_shape"])
    if (
        weight is None
        or weight.shape[2:] != (1, 1)
        or window != list(found.get("strides", [1, 1]))
        or int(np.prod(window)) > _MOST_POOLED
        or any(found.get("pads", ()))
        or any(of_convolution.get("pads", ()))
        or found.get("ceil_mode", 0)
        or of_convolution.get("group", 1) != 1
        or of_convolution.get("strides", [1, 1]) != [1, 1]
        or {b"SAME_UPPER", b"SAME_LOWER"} & {found.get("auto_pad"), of_convolution.get("auto_pad")}
    ):
        return
    spread = np.broadcast_to(weight / np.prod(window), (*weight.shape[:2], *window))
    name = graph.add_constant(f"{convolution.input[1]}_pooled", spread.astype(np.float32))
    both = helper.make_node(
        "Conv",
        [pool.input[0], name, *convolution.input[2:]],
        convolution.output,
        convolution.name,
        kernel_shape=window,
        strides=window,
    )
    graph.replace([pool, convolution], [both])


def _mean_by_pooling(graph: GraphEditor, mean: onnx.NodeProto) -> None:
    transpose = graph.producer(mean.input[0])
    axes = graph.constant(mean.input[1]) if len(mean.input) > 1 else None
    if (
        transpose is None
        or transpose.op_type != "Transpose"
        or attributes(transpose)["perm"] != _NCHW_TO_NHWC
        or graph.reader(transpose.output[0]) is None
        or axes is None
        or sorted(axes.tolist()) != [1, 2]
        or attributes(mean).get("keepdims", 1)
    ):
        return
    pooled = f"{mean.output[0]}_pooled"
    graph.replace(
        [transpose, mean],
        [
            helper.make_node(
                "GlobalAveragePool", [transpose.input[0]], [pooled], f"{mean.name}_pool"
            ),
            helper.make_node("Flatten", [pooled], mean.output, mean.name, axis=1),
        ],
    )


def _dense_by_gemm(graph: GraphEditor, product: onnx.NodeProto) -> None:
    add = graph.reader(product.output[0])
    weight = graph.constant(product.input[1])
    if add is None or add.op_type != "Add" or weight is None or weight.ndim != 2:
        return
    bias_name = next((name for name in reversed(add.input) if name != product.output[0]), "")
    bias = graph.constant(bias_name)
    if (
        bias is None
        or bias.shape != weight.shape[1:]
        or len(graph.shape(product.input[0]) or ()) != 2
    ):
        return
    gemm = helper.make_node("Gemm", [*product.input, bias_name], add.output, product.name)
    graph.replace([product, add], [gemm])


def _reshape_by_flatten(graph: GraphEditor, reshape: onnx.NodeProto) -> None:
    before, after = graph.shape(reshape.input[0]), graph.shape(reshape.output[0])
    if before is None or after is None or len(after) != 2 or before[0] != after[0]:
        return
    if not isinstance(before[0], str) or not all(isinstance(size, int) for size in before[1:]):
        return
    flatten = helper.make_node("Flatten", [reshape.input[0]], reshape.output, reshape.name, axis=1)
    graph.replace([reshape], [flatten])


def _integer_input(graph: GraphEditor) -> IntegerInput | None:
    """Find the chain, and round its zero point to a whole number.

    The resulting shift of all pixels, at most half a grey level, goes into the bias of the
    convolution.
    """
    pixels = _pixels(graph)
    chain = _chain(graph, pixels, ("Cast", "Mul", "Add", "Transpose", "Conv"))
    if chain is None:
        return None
    _, multiply, add, transpose, convolution = chain
    scale, offset = (graph.constant(node.input[1]) for node in (multiply, add))
    weight = graph.constant(convolution.input[1])
    if (
        attributes(transpose)["perm"] != _NHWC_TO_NCHW
        or scale is None
        or offset is None
        or weight is None
        or scale.size != 1
        or offset.size != 1
        or scale.item() <= 0
    ):
        return None
    exact = -offset.item() / scale.item()
    zero_point = int(np.ceil(exact - 0.5 - _ROUNDING))  # of 127.5, however it was rounded, 127
    if not 0 <= zero_point <= 255 or abs(exact - zero_point) > 0.5 + 2 * _ROUNDING:
        return None
    whole = np.full(offset.shape, -scale.item() * zero_point, np.float32)
    moved = offset.item() - whole.item()
    if abs(moved) > _ROUNDING * scale.item():
        add.input[1] = graph.add_constant(f"{add.input[1]}_whole", whole)
        _add_to_bias(graph, convolution, moved * weight.sum(axis=(1, 2, 3)))
    names = tuple(node.name for node in chain[:-1])
    return IntegerInput(pixels, names, transpose.output[0], float(scale.item()), zero_point)


def _pixels(graph: GraphEditor) -> str:
    """Return the image's name, or the name of its batch with its mirror image."""
    for node in graph.nodes:
        if node.op_type == "Concat" and INPUT.name in node.input:
            return str(node.output[0])
    return INPUT.name


def _chain(graph: GraphEditor, value: str, op_types: Sequence[str]) -> list[onnx.NodeProto] | None:
    """Return nodes of these types that follow each other from ``value``, each the only reader."""
    found = []
    for op_type in op_types:
        node = graph.reader(value)
        if node is None or node.op_type != op_type:
            return None
        found.append(node)
        value = node.output[0]
    return found


def _add_to_bias(graph: GraphEditor, convolution: onnx.NodeProto, extra: NDArray[Any]) -> None:
    name = convolution.input[2] if len(convolution.input) > 2 else ""
    before = graph.constant(name)
    bias = (extra if before is None else before + extra).astype(np.float32)
    new = graph.add_constant(f"{name or convolution.input[1]}_moved", bias)
    del convolution.input[2:]
    convolution.input.append(new)
