"""Convert a Keras model to an ONNX graph that keeps the contract of :mod:`cifar10.contract`.

Only tf2onnx over a ``tf.function`` works: Keras' own export produces a float input with a random
name, and ``tf2onnx.convert.from_keras`` does not support Keras 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from cifar10.contract import INPUT, OUTPUT
from cifar10.errors import ExportError

OPSET: Final = 18
"""Highest opset that tf2onnx 1.17 writes."""

_BATCH: Final = "batch"


def convert(model: keras.Model) -> onnx.ModelProto:
    """Convert ``model``, infer all shapes, and run the full checker.

    Args:
        model: Keras model, uint8 (N, H, W, 3) → float32 (N, L).

    Returns:
        A graph with one input, uint8 ``image`` (batch, H, W, 3), and one output, float32
        ``probabilities`` (batch, L).

    Raises:
        ExportError: Keras' backend is not TensorFlow, or the graph breaks the
            contract.
    """
    if keras.backend.backend() != "tensorflow":
        message = (
            f"Keras runs on {keras.backend.backend()!r}, but the conversion needs TensorFlow: "
            "set KERAS_BACKEND=tensorflow (.keras files move between backends)"
        )
        raise ExportError(message)
    _freeze_normalisation(model)
    image_shape, outputs = model.input_shape[1:], model.output_shape[1:]
    signature = (tf.TensorSpec((None, *image_shape), tf.uint8, name=INPUT.name),)

    def answer(image: Any) -> Any:
        return model(image, training=False)

    try:
        with _scalar_adds_pushed():
            converted, _ = tf2onnx.convert.from_function(
                tf.function(answer, input_signature=signature),
                input_signature=signature,
                opset=OPSET,
            )
    except Exception as error:  # tf2onnx's rewriters raise exceptions of any type
        message = f"tf2onnx cannot convert the model: {error}"
        raise ExportError(message) from error
    return _keep_contract(converted, image_shape, outputs)


def _freeze_normalisation(model: keras.Model) -> None:
    """Make mean and variance constants, because tf2onnx turns their tensors into graph inputs."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        elif isinstance(layer, keras.Model):
            _freeze_normalisation(layer)


@contextmanager
def _scalar_adds_pushed() -> Iterator[None]:
    """Let tf2onnx move transposes past the addition of a scalar.

    Its optimiser treats any constant added to a convolution as a bias and reads its longest
    dimension, which a scalar does not have (MobileNetV3's hard swish adds 3). It then skips the
    whole graph, which keeps over a hundred transposes.
    """
    handle = TransposeOptimizer._add_handler

    def handle_scalars_too(optimizer: Any, transpose: Any, node: Any) -> Any:
        added = node.inputs[1]
        if added.is_const() and added.get_tensor_value(as_list=False).ndim == 0:
            return optimizer._handle_node_having_branches(transpose, node)
        return handle(optimizer, transpose, node)

    TransposeOptimizer._add_handler = handle_scalars_too
    try:
        yield
    finally:
        TransposeOptimizer._add_handler = handle


def _keep_contract(
    model: onnx.ModelProto, image_shape: tuple[int, ...], outputs: tuple[int, ...]
) -> onnx.ModelProto:
    graph = model.graph
    # A weight that tf2onnx could not freeze becomes an additional input, and only `run` would fail.
    if len(graph.input) != 1 or len(graph.output) != 1:
        message = (
            f"the graph has inputs {[value.name for value in graph.input]} and outputs "
            f"{[value.name for value in graph.output]}, expected one of each"
        )
        raise ExportError(message)
    _rename(graph, graph.input[0].name, INPUT.name)
    _rename(graph, graph.output[0].name, OUTPUT.name)
    for value, element, shape in (
        (graph.input[0], onnx.TensorProto.UINT8, image_shape),
        (graph.output[0], onnx.TensorProto.FLOAT, outputs),
    ):
        if value.type.tensor_type.elem_type != element:
            found = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            expected = onnx.TensorProto.DataType.Name(element)
            message = f"{value.name!r} is {found}, expected {expected}"
            raise ExportError(message)
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, (_BATCH, *shape)))
    del graph.value_info[:]  # inferred again, with the batch's name
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the converted graph does not pass ONNX's own checks: {error}"
        raise ExportError(message) from error
    return inferred


def _rename(graph: onnx.GraphProto, before: str, after: str) -> None:
    """Rename a value in all nodes that write or read it."""
    if before == after:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == before:
                    names[index] = after
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == before:
            value.name = after
