"""Early exit: skip the mirror image if the prediction for the image alone is confident.

A ``mirrored`` model classifies the mean of the pooled features of the image and its mirror image.
This is twice the work, and most images get the same class. Here the image is classified first. Only
if its highest probability is below a threshold is the mirror image processed too, and the mean of
both classified as before (an early exit: Teerapittayanon et al., arXiv 1709.01686; here the later
exit is the second view). Only the uncertain images of a batch continue, in an ``If`` that is
skipped if there are none. The result for one image does not depend on the others.

ONNX Runtime fuses and packs the integer kernels inside the branch as it does outside (1.31; the
weights are stored once and belong to the outer graph). On a GPU a condition waits for the device,
and two views cost hardly more than one, so only variants for CPUs exit early.
"""

from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cifar10.card import EarlyExit
from cifar10.contract import INPUT, OUTPUT
from cifar10.errors import ExportError
from export.graph import GraphEditor, attributes

THRESHOLDS: Final = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Candidate thresholds for the probability, 0.5 to 0.95."""

_QUANTISED: Final = ("QuantizeLinear", "DequantizeLinear")

_BATCH: Final = "batch"


def looks_twice(model: onnx.ModelProto) -> bool:
    """Return whether the graph classifies the mean of an image and a second view, in one batch."""
    graph = GraphEditor(model)
    return _views(graph) is not None and _mean_of_views(graph) is not None


def exit_early(model: onnx.ModelProto, confidence: float) -> onnx.ModelProto:
    """Process the second view only if the first view's highest probability is below ``confidence``.

    Args:
        model: a graph that :func:`looks_twice`, at any precision, with its last dense layer and the
            softmax in float32: uint8 ``image`` in, float32 ``probabilities`` out.
        confidence: threshold, 0–1; 0 never uses the second view, above 1 always.

    Returns:
        A graph with the same input and output.

    Raises:
        ExportError: the graph does not have two views, or its parts are not found.
    """
    graph = GraphEditor(model)
    parts = _Parts(graph)
    name = graph.add_constant
    threshold = name("confidence", np.array(confidence, np.float32))
    classes = name("classes", np.array([1], np.int64))
    in_a_row = name("in_a_row", np.array([-1], np.int64))
    in_a_column = name("in_a_column", np.array([-1, 1], np.int64))
    half = name("half", np.array(0.5, np.float32))

    class_count = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    node = helper.make_node

    first, names = _copied(parts.body, {parts.views: INPUT.name}, "first")
    pooled = names[parts.pooled]
    head, names = _copied(parts.head, {parts.mean: pooled}, "first")
    answer = names[OUTPUT.name]
    outer = [
        *first,
        *head,
        node("ReduceMax", [answer, classes], ["sure"], "sure", keepdims=0),
        node("ReduceMin", ["sure"], ["least_sure"], "least_sure", keepdims=0),
        node("Less", ["least_sure", threshold], ["any_unsure"], "any_unsure"),
    ]
    found = [
        node("Less", ["sure", threshold], ["unsure"], "unsure"),
        node("NonZero", ["unsure"], ["found"], "found"),
        node("Reshape", ["found", in_a_row], ["rows"], "rows"),
        node("Reshape", ["found", in_a_column], ["places"], "places"),
        node("Gather", [INPUT.name, "rows"], ["seen_again"], "seen_again", axis=0),
    ]
    mirror, names = _copied(parts.mirror, {INPUT.name: "seen_again"}, "second")
    second, names = _copied(parts.body, {parts.views: names[parts.mirrored]}, "second")
    mean = [
        node("Gather", [pooled, "rows"], ["pooled_first"], "pooled_first", axis=0),
        node("Add", ["pooled_first", names[parts.pooled]], ["pooled_sum"], "pooled_sum"),
        node("Mul", ["pooled_sum", half], ["pooled_mean"], "pooled_mean"),
    ]
    head, names = _copied(parts.head, {parts.mean: "pooled_mean"}, "second")
    put = node("ScatterND", [answer, "places", names[OUTPUT.name]], ["with_second"], "with_second")
    again = [*found, *mirror, *second, *mean, *head, put]
    stay = [node("Identity", [answer], ["as_first"], "as_first")]
    choice = node(
        "If",
        ["any_unsure"],
        [OUTPUT.name],
        "look_again",
        then_branch=_branch("again", again, "with_second", class_count),
        else_branch=_branch("stay", stay, "as_first", class_count),
    )
    graph.replace(graph.nodes, [*outer, choice])
    return graph.finish()


def choose_exit(first: NDArray[np.float32], both: NDArray[np.float32]) -> EarlyExit | None:
    """Return the lowest of :data:`THRESHOLDS` from which on no class changes, or None.

    Args:
        first: probabilities for the first view alone, (N, 10), on validation images.
        both: probabilities for both views, on the same images.
    """
    sure = first.max(axis=1)
    changed = sure[first.argmax(axis=1) != both.argmax(axis=1)]
    least = float(changed.max()) if len(changed) else 0.0
    for threshold in THRESHOLDS:
        if np.float32(threshold) > least:  # compare as the graph will
            return EarlyExit(threshold, float(np.mean(sure < np.float32(threshold))), len(sure))
    return None


class _Parts:
    """Parts of a graph with two views."""

    def __init__(self, graph: GraphEditor) -> None:
        found = _views(graph)
        mean = _mean_of_views(graph)
        if found is None or mean is None:
            message = (
                "the graph does not put an image and another view of it into one batch and "
                "average both"
            )
            raise ExportError(message)
        self.views, self.mirrored = found
        self.mean = mean.output[0]
        """Input of the head."""
        self.pooled = _pooled(graph, mean)
        """Pooled features of all views as one batch, (2N, channels)."""
        self.mirror = _between(graph, INPUT.name, self.mirrored)
        self.body = _between(graph, self.views, self.pooled)
        self.head = _between(graph, self.mean, OUTPUT.name)


def _views(graph: GraphEditor) -> tuple[str, str] | None:
    """Return the batch of both views and its second half, or None without such a batch."""
    for node in graph.nodes:
        if node.op_type == "Concat" and attributes(node)["axis"] == 0 and len(node.input) == 2:
            first, second = node.input
            if first == INPUT.name:
                return str(node.output[0]), str(second)
    return None


def _mean_of_views(graph: GraphEditor) -> onnx.NodeProto | None:
    """Return the last mean before the output if it is over the first dimension."""
    node = graph.producer(OUTPUT.name)
    while node is not None and node.op_type != "ReduceMean":
        node = graph.producer(node.input[0]) if node.input else None
    if node is None or len(node.input) < 2:
        return None
    axes = graph.constant(node.input[1])
    over_views = axes is not None and axes.tolist() == [0] and not attributes(node)["keepdims"]
    return node if over_views else None


def _pooled(graph: GraphEditor, mean: onnx.NodeProto) -> str:
    value = str(mean.input[0])
    while (node := graph.producer(value)) is not None:
        if node.op_type not in (*_QUANTISED, "Reshape"):
            break
        value = str(node.input[0])
        if node.op_type == "Reshape":
            return value
    message = f"{mean.name!r} does not average the two views"
    raise ExportError(message)


def _between(graph: GraphEditor, start: str, end: str) -> list[onnx.NodeProto]:
    """Return the nodes that compute ``end`` from ``start`` and constants, in order."""
    needed, found = {end}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output) and start not in node.output:
            needed.update(node.input)
            found.append(node)
    return found[::-1]


def _copied(
    nodes: list[onnx.NodeProto], names: dict[str, str], prefix: str
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """Return copies of nodes with renamed values, and the new names.

    Values in ``names`` are renamed accordingly; computed values become ``prefix/NAME``.
    """
    names = dict(names)
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name}"
        copy.input[:] = [names.get(value, value) for value in node.input]
        for value in node.output:
            names.setdefault(value, f"{prefix}/{value}")
        copy.output[:] = [names[value] for value in node.output]
        copies.append(copy)
    return copies, names


def _branch(
    name: str, nodes: list[onnx.NodeProto], output: str, class_count: int
) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [_BATCH, class_count])
    return helper.make_graph(nodes, name, [], [value])
