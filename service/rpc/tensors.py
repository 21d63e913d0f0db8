"""Read and write messages of inference: request → images, probabilities → response."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import ModelCard
from service.descriptions import VERSION
from service.problems import malformed
from service.rpc.messages import message_class, parse
from service.rpc.structure import check_structure
from service.tensor_input import (
    ENCODED,
    InferenceRequest,
    check_classes,
    check_id,
    check_names,
    classification,
    count_images,
    join_elements,
    refuse_shared_memory,
    split_elements,
    take_pixels,
)

_Images = NDArray[np.uint8] | tuple[bytes, ...]

_Request: Final = message_class("ModelInferRequest")
_Response: Final = message_class("ModelInferResponse")
_OutputTensor: Final = message_class("ModelInferResponse.InferOutputTensor")


def parse_request(message: bytes, most: int, *, is_small: bool) -> Any:
    """Return the ModelInferRequest in ``message``.

    Args:
        message: the bytes received.
        most: maximum number of images.
        is_small: whether the message is so short that its fields need no counting.

    Raises:
        Problem: 400 if it is not one.
    """
    if not is_small:
        check_structure(message, most)
    return parse(_Request, message)


def read_inference(request: Any, card: ModelCard, most: int) -> InferenceRequest:
    """Read a ModelInferRequest.

    Raises:
        Problem: 400 for a malformed request, 413 for too many images.
    """
    inputs, outputs = request.inputs, request.outputs
    check_names([one.name for one in inputs], [one.name for one in outputs], card)
    tensor = inputs[0]
    refuse_shared_memory(tensor.parameters, f"the input {card.input.name!r}")
    count = count_images(tensor.datatype, tensor.shape, card, most)
    classes = 0
    for output in outputs:
        refuse_shared_memory(output.parameters, f"the output {card.output.name!r}")
        classes = check_classes(_number(output.parameters, "classification"), card)
    images = _raw(request, tensor, count, card)
    if images is None:
        images = _contents(tensor, count, card)
    return InferenceRequest(check_id(request.id), images, True, classes)


def _raw(request: Any, tensor: Any, count: int, card: ModelCard) -> _Images | None:
    raw = request.raw_input_contents
    if not raw:
        return None
    if len(raw) != 1 or tensor.HasField("contents"):
        detail = "expected the input once: in 'raw_input_contents' or in its 'contents'"
        raise malformed(detail)
    if tensor.datatype == ENCODED:
        return split_elements(memoryview(raw[0]), count)
    return take_pixels(np.frombuffer(raw[0], np.uint8), count, card)


def _contents(tensor: Any, count: int, card: ModelCard) -> _Images:
    contents = tensor.contents
    if tensor.datatype == ENCODED:
        if len(contents.bytes_contents) != count:
            found = len(contents.bytes_contents)
            detail = f"the shape has {count:,} images, but 'bytes_contents' has {found:,}"
            raise malformed(detail)
        return tuple(contents.bytes_contents)
    values = contents.uint_contents
    expected = count * int(np.prod(card.input.shape[1:]))
    if len(values) != expected:  # before they become Python's numbers
        detail = f"the shape has {expected:,} values, but 'uint_contents' has {len(values):,}"
        raise malformed(detail)
    try:
        return take_pixels(np.frombuffer(bytes(values), np.uint8), count, card)
    except ValueError as error:
        detail = "the values in 'uint_contents' are not from 0 to 255"
        raise malformed(detail) from error


def _number(parameters: Mapping[str, Any], name: str) -> object:
    if name not in parameters:
        return 0
    choice = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], choice) if choice else None


def write_inference(
    wanted: InferenceRequest, card: ModelCard, probabilities: NDArray[np.float32]
) -> bytes:
    """Return the ModelInferResponse to ``wanted``; ``probabilities`` is float32 (N, L)."""
    if wanted.classes:
        rows = probabilities.tolist()
        texts = [text for row in rows for text in classification(row, wanted.classes, card.labels)]
        datatype, shape = ENCODED, (len(rows), wanted.classes)
        content = join_elements(texts)
    else:
        datatype, shape = card.output.datatype, probabilities.shape
        content = probabilities.astype("<f4").tobytes()
    response: bytes = _Response(
        model_name=card.name,
        model_version=VERSION,
        id=wanted.id,
        outputs=[_OutputTensor(name=card.output.name, datatype=datatype, shape=shape)],
        raw_output_contents=[content],
    ).SerializeToString()
    return response
