"""Count a graph's multiply-accumulates from its inferred shapes.

One MAC is one multiplication and one addition. Convolutions and matrix products are counted;
biases, activations, pooling and normalisation are not, as is usual where MACs are compared.
"""

import math
from typing import Final

import onnx

from cifar10.errors import ExportError

_COUNTED: Final = ("Conv", "Gemm", "MatMul")


def count_macs(model: onnx.ModelProto) -> int:
    """Return the MACs for one image; a graph with two views counts both.

    Args:
        model: graph whose shapes are known except for the batch, the first dimension.

    Raises:
        ExportError: a required shape is unknown.
    """
    shapes = _shapes(_of_one_image(model).graph)
    total = 0
    for node in model.graph.node:
        if node.op_type not in _COUNTED:
            continue
        output = _known(shapes, node.output[0], batched=True)
        weight = _known(shapes, node.input[1], batched=False)
        if node.op_type == "Conv":  # (out, in / groups, height, width)
            per_value = math.prod(weight[1:])
        elif node.op_type == "Gemm" and _attribute(node, "transB"):
            per_value = weight[-1]
        else:
            per_value = weight[-2]
        total += math.prod(output) * per_value
    return total


def _of_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy for a batch of one, with its shapes inferred again."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]
    batch = single.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*single.graph.input, *single.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param == batch:
            first.dim_value = 1
    return onnx.shape_inference.infer_shapes(single, data_prop=True)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    shapes: dict[str, tuple[int | None, ...]] = {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(
                dimension.dim_value if dimension.HasField("dim_value") else None
                for dimension in value.type.tensor_type.shape.dim
            )
    return shapes


def _known(
    shapes: dict[str, tuple[int | None, ...]], name: str, *, batched: bool
) -> tuple[int, ...]:
    """Return the shape of ``name``; for a ``batched`` value, an unknown batch counts as 1."""
    shape = shapes.get(name)
    if shape and batched:
        shape = (shape[0] or 1, *shape[1:])
    if shape is None or None in shape:
        message = f"cannot count MACs: the shape of {name!r} is {shape}, expected it to be known"
        raise ExportError(message)
    return tuple(size for size in shape if size is not None)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(found.i) for found in node.attribute if found.name == name), 0)
