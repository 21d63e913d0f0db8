"""Convert to float16 for GPUs, with the same input and output and a float32 softmax.

On a CPU, ONNX Runtime casts between both types, which is slower than float32.
"""

from typing import Final

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from cifar10.errors import ExportError
from export.graph import checked

METHOD: Final = "float16 weights and arithmetic by onnxruntime.transformers; the softmax in float32"


def convert_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert ``model`` to float16; it still takes uint8 and returns float32.

    Raises:
        ExportError: the conversion fails, or the result does not pass ONNX's checks.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        half = convert_float_to_float16(
            copy, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Softmax"]
        )
    except Exception as error:  # it raises exceptions of any type
        message = f"the graph cannot be converted to float16: {error}"
        raise ExportError(message) from error
    _sort(half.graph)
    del half.graph.value_info[:]
    return checked(half)


def _sort(graph: onnx.GraphProto) -> None:
    """Sort nodes topologically, because the converter appends its casts."""
    known = {"", *(tensor.name for tensor in (*graph.initializer, *graph.input))}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            message = f"no node produces the input of {waiting[0].name!r}"
            raise ExportError(message)
        ordered.append(ready[0])
        known.update(ready[0].output)
        waiting.remove(ready[0])
    del graph.node[:]
    graph.node.extend(ordered)
