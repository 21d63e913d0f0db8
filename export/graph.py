"""Read and change an ONNX graph: find producers and readers of values, replace nodes."""

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cifar10.errors import ExportError


class GraphEditor:
    """Editable copy of a model; :meth:`finish` returns the checked result.

    It is meant for small graphs: every look-up visits all nodes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """All nodes, in the order of the graph."""
        return list(self._graph.node)

    def producer(self, value: str) -> onnx.NodeProto | None:
        """Return the node that produces ``value``; None for an input or a constant."""
        return next((node for node in self._graph.node if value in node.output), None)

    def reader(self, value: str) -> onnx.NodeProto | None:
        """Return the only node that reads ``value``; None if there are others or none, or if it is
        also an output of the graph."""
        found = [node for node in self._graph.node if value in node.input]
        if len(found) != 1 or any(value == output.name for output in self._graph.output):
            return None
        return found[0]

    def constant(self, value: str) -> NDArray[Any] | None:
        """Return the value of a constant; None if ``value`` is not one."""
        for tensor in self._graph.initializer:
            if tensor.name == value:
                array: NDArray[Any] = numpy_helper.to_array(tensor)
                return array
        return None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store ``value`` under ``name``, made unique; returns the name it got."""
        taken = {tensor.name for tensor in self._graph.initializer}
        unique = next(
            candidate
            for candidate in (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
            if candidate not in taken
        )
        self._graph.initializer.append(numpy_helper.from_array(value, unique))
        return unique

    def replace(self, old: Sequence[onnx.NodeProto], new: Iterable[onnx.NodeProto]) -> None:
        """Put ``new`` in the place of the last of ``old``, so that their inputs are computed
        before."""
        names = [node.name for node in self._graph.node]
        places = sorted(names.index(node.name) for node in old)
        nodes = self.nodes
        nodes[places[-1] : places[-1] + 1] = list(new)
        for place in reversed(places[:-1]):
            del nodes[place]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def shape(self, value: str) -> tuple[int | str | None, ...] | None:
        """Return the size or name of each dimension; None if the shape is unknown."""
        for known in (*self._graph.value_info, *self._graph.input, *self._graph.output):
            if known.name == value and known.type.tensor_type.HasField("shape"):
                return tuple(
                    dimension.dim_value
                    if dimension.HasField("dim_value")
                    else dimension.dim_param or None
                    for dimension in known.type.tensor_type.shape.dim
                )
        return None

    def extended(self, nodes: Iterable[onnx.NodeProto], outputs: Iterable[str]) -> onnx.ModelProto:
        """Return a model that also computes ``nodes`` and returns ``outputs``, all float."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        model.graph.node.extend(nodes)
        model.graph.output.extend(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
        )
        return model

    def finish(self) -> onnx.ModelProto:
        """Return the changed model without unused nodes and constants, with inferred shapes.

        Raises:
            ExportError: it does not pass ONNX's own checks.
        """
        read = {output.name for output in self._graph.output}
        kept_nodes = []
        for node in reversed(self._graph.node):
            if read.intersection(node.output):
                read.update(reads(node))
                kept_nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(reversed(kept_nodes))
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]
        return checked(self._model)


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node reads, and the nodes of its subgraphs."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found |= reads(inner)
    return found


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {found.name: helper.get_attribute_value(found) for found in node.attribute}


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with inferred shapes, after ONNX's full check.

    Raises:
        ExportError: the model does not pass.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the graph does not pass ONNX's own checks: {error}"
        raise ExportError(message) from error
    return inferred
