"""Read and write REST bodies of the Open Inference Protocol: request → images, probabilities →
response.

A body is JSON, or JSON followed by the tensors' bytes (the binary tensor extension; the header
``Inference-Header-Content-Length`` gives the length of the JSON). It may be compressed.

Sources: https://github.com/kserve/open-inference-protocol and, for the extensions,
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from cifar10.card import ModelCard
from service.descriptions import VERSION
from service.exchange import JSON, Answer
from service.problems import Kind, Problem, malformed, too_large
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
    whole,
)

INFERENCE_HEADER: Final = b"inference-header-content-length"

_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_WINDOW_BITS: Final = {b"gzip": _GZIP_BITS, b"x-gzip": _GZIP_BITS, b"deflate": zlib.MAX_WBITS}
ENCODINGS: Final = tuple(_WINDOW_BITS)
"""Content encodings accepted for requests. (``deflate`` is zlib's format, and ``x-gzip`` another
name of ``gzip``: RFC 9110, section 8.4.1.)"""

_JSON_PART: Final = 8
_LEAST_JSON_BYTES: Final = 64 * 1024
_LEAST_BYTES_A_LIST: Final = 7
"""Least bytes of JSON per list. Nearly every list is a pixel, with at least three digits and five
punctuation characters."""
_MAX_OBJECTS: Final = 64
_MAX_STRINGS: Final = 512
_FEW: Final = 1_024
"""Allowance for lists and values that are not part of an image."""
_MOST_NESTED_IMAGES: Final = 64
"""Maximum number of images given as nested lists. Parsing a list takes ten times as long as parsing
a number in a flat list."""


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Undo a request's Content-Encoding.

    Raises:
        Problem: 400 for damaged data, 413 as soon as the output exceeds ``max_bytes``.
    """
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        return body
    decompressor = zlib.decompressobj(window_bits)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        detail = f"the body is not {encoding.decode()} data: {error}"
        raise malformed(detail) from error
    if len(plain) > max_bytes:
        raise too_large(max_bytes)
    if not decompressor.eof or decompressor.unused_data:
        detail = f"the {encoding.decode()} data is truncated or has trailing bytes"
        raise malformed(detail)
    return plain


def max_json_bytes(max_body_bytes: int) -> int:
    """Return the maximum length of JSON in a body of at most ``max_body_bytes``. Parsing JSON holds
    Python's lock, and costs far more per image than binary tensors do."""
    return min(max_body_bytes, max(max_body_bytes // _JSON_PART, _LEAST_JSON_BYTES))


def read_inference(
    body: bytes, json_length: bytes | None, card: ModelCard, most: int, max_json: int
) -> InferenceRequest:
    """Read the body of an inference request.

    Args:
        body: the decompressed body.
        json_length: value of the header :data:`INFERENCE_HEADER`; None without binary tensors.
        card: the card of the model that is asked.
        most: maximum number of images.
        max_json: maximum length of the JSON, in bytes.

    Raises:
        Problem: 400 for a malformed request, 413 for too many images or too much JSON.
    """
    length = len(body)
    if json_length is not None:
        if not json_length.isdigit() or len(json_length) > 18 or int(json_length) > length:
            detail = "Inference-Header-Content-Length is not a number up to the body's length"
            raise malformed(detail)
        length = int(json_length)
    if length > max_json:
        raise _too_much_json(max_json)
    document = body[:length]
    _check_structure(document, most, card)
    request = parse_object(document)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        detail = "'id' is not a string"
        raise malformed(detail)
    inputs = _objects(request, "inputs")
    outputs = [] if request.get("outputs") is None else _objects(request, "outputs")
    check_names([one.get("name") for one in inputs], [one.get("name") for one in outputs], card)
    images = _images(inputs[0], memoryview(body)[length:], card, most)
    binary, classes = _wanted(request, outputs, card)
    return InferenceRequest(check_id(identifier or ""), images, binary, classes)


def parse_object(document: bytes) -> dict[str, Any]:
    """Return the JSON object in ``document``.

    Raises:
        Problem: 400 for anything else.
    """
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not JSON: {error}"
        raise malformed(detail) from error
    if not isinstance(parsed, dict):
        detail = "the body is not a JSON object"
        raise malformed(detail)
    return parsed


def _check_structure(document: bytes, most: int, card: ModelCard) -> None:
    """Refuse JSON with more lists, objects, strings or values than a request with ``most`` images
    can have, before a parser creates objects: a megabyte of ``[],`` would become 20 of lists.

    Characters inside strings are counted too.
    """
    height, width, channels = card.input.shape[1:]
    lists_an_image = 1 + height * (1 + width)
    values_an_image = height * width * channels + lists_an_image
    nested = min(most, _MOST_NESTED_IMAGES) * lists_an_image
    lists = min(nested, len(document) // _LEAST_BYTES_A_LIST) + _FEW
    for sign, name, accepted in (
        (b"[", "lists", lists),
        (b"{", "objects", _MAX_OBJECTS),
        (b'"', "quotation marks", 2 * _MAX_STRINGS),
        (b",", "commas", most * values_an_image + _FEW),
    ):
        found = document.count(sign)
        if found > accepted:
            detail = (
                f"the JSON has {found:,} {name}; a request of its size has at most {accepted:,}. "
                "Send images as binary tensors, or their values in one flat list."
            )
            raise malformed(detail)


def _too_much_json(limit: int) -> Problem:
    detail = (
        f"at most {limit:,} bytes of JSON are accepted; send images as binary tensors (the header "
        "Inference-Header-Content-Length), which may be longer and are read faster"
    )
    return Problem(Kind.TOO_LARGE, detail, extras={"max_json_bytes": limit})


def _images(
    tensor: dict[str, Any], rest: memoryview, card: ModelCard, most: int
) -> NDArray[np.uint8] | tuple[bytes, ...]:
    parameters = _parameters(tensor)
    refuse_shared_memory(parameters, f"the input {card.input.name!r}")
    datatype, shape = tensor.get("datatype"), _shape(tensor.get("shape"))
    count = count_images(datatype, shape, card, most)
    size = parameters.get("binary_data_size")
    if size is not None:
        if whole(size) != len(rest):
            detail = f"the input's 'binary_data_size' is not the {len(rest)} bytes after the JSON"
            raise malformed(detail)
        if datatype == ENCODED:
            return split_elements(rest, count)
        return take_pixels(np.frombuffer(rest, np.uint8), count, card)
    if len(rest):
        detail = "bytes follow the JSON, but the input has no 'binary_data_size'"
        raise malformed(detail)
    if datatype == ENCODED:
        detail = (
            f"JSON cannot carry encoded images: send the {ENCODED} tensor after the JSON, with "
            "'binary_data_size' and the header Inference-Header-Content-Length"
        )
        raise malformed(detail)
    flat = _from_json(tensor.get("data"), (count, *card.input.shape[1:]))
    return take_pixels(flat, count, card)


def _shape(sizes: object) -> list[int] | None:
    if not isinstance(sizes, list):
        return None
    numbers = [whole(size) for size in sizes]
    return None if None in numbers else [number or 0 for number in numbers]


def _from_json(data: object, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return the values of a JSON list of whole numbers from 0 to 255, either flat or nested as
    ``shape`` says: uint8, flat."""
    if not isinstance(data, list):
        detail = "the input has neither a list 'data' nor a parameter 'binary_data_size'"
        raise malformed(detail)
    if data and isinstance(data[0], list):
        for size in shape[1:]:
            if not all(isinstance(entry, list) and len(entry) == size for entry in data):
                detail = "the lists in the input's 'data' are not nested as its shape says"
                raise malformed(detail)
            data = list(chain.from_iterable(data))
    values: list[Any] = data
    if any(type(value) is float for value in values):
        values = [whole(value) for value in values]
    try:
        # Not numpy.array, which turns numbers and one long string into an array of long strings.
        return np.frombuffer(bytes(values), np.uint8)
    except (TypeError, ValueError) as error:
        detail = "the input's 'data' are not whole numbers from 0 to 255"
        raise malformed(detail) from error


def _wanted(
    request: dict[str, Any], outputs: list[dict[str, Any]], card: ModelCard
) -> tuple[bool, int]:
    """Return (binary, classes), the requested form of the response."""
    binary = _parameters(request).get("binary_data_output", False)
    classes: object = 0
    for output in outputs:
        parameters = _parameters(output)
        refuse_shared_memory(parameters, f"the output {card.output.name!r}")
        binary = parameters.get("binary_data", binary)
        classes = parameters.get("classification", 0)
    if not isinstance(binary, bool):
        detail = "'binary_data' and 'binary_data_output' must be true or false"
        raise malformed(detail)
    return binary, check_classes(classes, card)


def _objects(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = holder.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        detail = f"{name!r} is not a list of objects"
        raise malformed(detail)
    return found


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        detail = "'parameters' is not an object"
        raise malformed(detail)
    return found


def write_inference(
    wanted: InferenceRequest, card: ModelCard, probabilities: NDArray[np.float32]
) -> Answer:
    """Return the response to ``wanted``; ``probabilities`` is float32 (N, L)."""
    output: dict[str, Any] = {"name": card.output.name}
    content = b""
    if wanted.classes:
        rows = probabilities.tolist()
        texts = [text for row in rows for text in classification(row, wanted.classes, card.labels)]
        output |= {"datatype": ENCODED, "shape": [len(rows), wanted.classes]}
        if wanted.binary:
            content = join_elements(texts)
        else:
            output["data"] = texts
    else:
        output |= {"datatype": card.output.datatype, "shape": list(probabilities.shape)}
        if wanted.binary:
            content = probabilities.astype("<f4").tobytes()
        else:
            output["data"] = probabilities.ravel().tolist()
    document: dict[str, Any] = {
        "model_name": card.name,
        "model_version": VERSION,
        "outputs": [output],
    }
    if wanted.id:
        document["id"] = wanted.id
    if not wanted.binary:
        return Answer(200, orjson.dumps(document), JSON)
    output["parameters"] = {"binary_data_size": len(content)}
    header = orjson.dumps(document)
    length = str(len(header)).encode()
    return Answer(200, header + content, b"application/octet-stream", ((INFERENCE_HEADER, length),))


def error_answer(problem: Problem) -> Answer:
    """Return a problem as the protocol's error response: ``{"error": "..."}``."""
    text = f"{problem.kind.title.lower()}: {problem.detail}"
    if problem.kind is Kind.INTERNAL:
        text = f"{text} ({problem.instance})"
    return Answer(problem.kind.status, orjson.dumps({"error": text}), JSON, problem.headers)
