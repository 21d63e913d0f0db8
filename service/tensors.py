"""Read and write bodies of the Open Inference Protocol: request → images, probabilities → response.

A body is JSON, or JSON followed by the tensors' bytes (the binary tensor extension; the header
``Inference-Header-Content-Length`` gives the length of the JSON). It may be compressed.

Sources: https://github.com/kserve/open-inference-protocol and, for the extensions,
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import zlib
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from cifar10.contract import INPUT, OUTPUT
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS
from service.exchange import JSON, Answer
from service.problems import Kind, Problem, malformed, too_large, too_many_images

INFERENCE_HEADER: Final = b"inference-header-content-length"

_WINDOW_BITS: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
ENCODINGS: Final = tuple(_WINDOW_BITS)
"""Content encodings accepted for requests. (``deflate`` is zlib's format: RFC 9110, section
8.4.1.2.)"""


MAX_ID_CHARACTERS: Final = 1_024
"""Longest request id accepted; the id is repeated in the answer."""

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
_LISTS_AN_IMAGE: Final = 1 + IMAGE_SHAPE[0] * (1 + IMAGE_SHAPE[1])
_VALUES_AN_IMAGE: Final = IMAGE_SHAPE[0] * IMAGE_SHAPE[1] * IMAGE_SHAPE[2] + _LISTS_AN_IMAGE


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A decoded inference request."""

    id: str | None
    images: NDArray[np.uint8]
    """uint8 (N, 32, 32, 3), RGB."""
    binary: bool
    """Whether to send the probabilities as bytes after the JSON."""
    classes: int
    """Number of top classes to return, each as ``probability:class id:label``; 0: return the
    probabilities themselves."""


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
    body: bytes, json_length: bytes | None, most: int, max_json: int
) -> InferenceRequest:
    """Read the body of an inference request.

    Args:
        body: the decompressed body.
        json_length: value of the header :data:`INFERENCE_HEADER`; None without binary tensors.
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
    _check_structure(document, most)
    try:
        request = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not JSON: {error}"
        raise malformed(detail) from error
    if not isinstance(request, dict):
        detail = "the body is not a JSON object"
        raise malformed(detail)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        detail = "'id' is not a string"
        raise malformed(detail)
    if identifier is not None and len(identifier) > MAX_ID_CHARACTERS:
        detail = f"'id' has {len(identifier):,} characters; the limit is {MAX_ID_CHARACTERS:,}"
        raise malformed(detail)
    inputs = _objects(request, "inputs")
    if len(inputs) != 1 or inputs[0].get("name") != INPUT.name:
        detail = f"expected exactly one input, named {INPUT.name!r}"
        raise malformed(detail)
    images = _images(inputs[0], memoryview(body)[length:], most)
    binary, classes = _wanted(request)
    return InferenceRequest(identifier, images, binary, classes)


def _check_structure(document: bytes, most: int) -> None:
    """Refuse JSON with more lists, objects, strings or values than a request with ``most`` images
    can have, before a parser creates objects: a megabyte of ``[],`` would become 20 of lists.

    Characters inside strings are counted too.
    """
    nested = min(most, _MOST_NESTED_IMAGES) * _LISTS_AN_IMAGE
    lists = min(nested, len(document) // _LEAST_BYTES_A_LIST) + _FEW
    for sign, name, accepted in (
        (b"[", "lists", lists),
        (b"{", "objects", _MAX_OBJECTS),
        (b'"', "quotation marks", 2 * _MAX_STRINGS),
        (b",", "commas", most * _VALUES_AN_IMAGE + _FEW),
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


def _images(tensor: dict[str, Any], rest: memoryview, most: int) -> NDArray[np.uint8]:
    if tensor.get("datatype") != INPUT.datatype:
        detail = f"the input's datatype is not {INPUT.datatype}"
        raise malformed(detail)
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or [type(size) for size in shape] != [int] * 4
        or tuple(shape[1:]) != IMAGE_SHAPE
        or shape[0] < 1
    ):
        detail = "the input's shape is not [N, 32, 32, 3] with N of at least 1"
        raise malformed(detail)
    if shape[0] > most:
        raise too_many_images(most)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if len(rest):
            detail = "bytes follow the JSON, but the input has no 'binary_data_size'"
            raise malformed(detail)
        flat = _from_json(tensor.get("data"), shape)
    elif type(size) is not int or size != len(rest):
        detail = f"the input's 'binary_data_size' is not the {len(rest)} bytes after the JSON"
        raise malformed(detail)
    else:
        flat = np.frombuffer(rest, np.uint8)
    if flat.size != int(np.prod(shape)):
        detail = f"the shape has {int(np.prod(shape)):,} values, but the data has {flat.size:,}"
        raise malformed(detail)
    return flat.reshape(shape)


def _from_json(data: object, shape: list[int]) -> NDArray[np.uint8]:
    """Return the values of a JSON list of numbers from 0 to 255, either flat or nested as ``shape``
    says: uint8, flat."""
    if not isinstance(data, list):
        detail = "the input has neither a list 'data' nor a parameter 'binary_data_size'"
        raise malformed(detail)
    if data and isinstance(data[0], list):
        for size in shape[1:]:
            if not all(isinstance(entry, list) and len(entry) == size for entry in data):
                detail = "the lists in the input's 'data' are not nested as its shape says"
                raise malformed(detail)
            data = list(chain.from_iterable(data))
    try:
        # Not numpy.array, which turns numbers and one long string into an array of long strings.
        return np.frombuffer(bytes(data), np.uint8)
    except (TypeError, ValueError) as error:
        detail = "the input's 'data' are not whole numbers from 0 to 255"
        raise malformed(detail) from error


def _wanted(request: dict[str, Any]) -> tuple[bool, int]:
    """Return (binary, classes), the requested form of the response."""
    binary = _parameters(request).get("binary_data_output", False)
    classes: object = 0
    if request.get("outputs") is not None:
        outputs = _objects(request, "outputs")
        if len(outputs) > 1 or any(output.get("name") != OUTPUT.name for output in outputs):
            detail = f"expected at most one output, named {OUTPUT.name!r}"
            raise malformed(detail)
        for output in outputs:
            parameters = _parameters(output)
            binary = parameters.get("binary_data", binary)
            classes = parameters.get("classification", 0)
    if not isinstance(binary, bool):
        detail = "'binary_data' and 'binary_data_output' must be true or false"
        raise malformed(detail)
    if type(classes) is not int or classes < 0:
        detail = "'classification' is not a number of classes"
        raise malformed(detail)
    return binary, min(classes, CLASS_COUNT)  # as Triton does


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
    wanted: InferenceRequest, model: str, probabilities: NDArray[np.float32]
) -> Answer:
    """Return the response to ``wanted``; ``probabilities`` is float32 (N, 10)."""
    output: dict[str, Any] = {"name": OUTPUT.name}
    content = b""
    if wanted.classes:
        rows = [_classification(row, wanted.classes) for row in probabilities.tolist()]
        output |= {"datatype": "BYTES", "shape": [len(rows), wanted.classes]}
        texts = [text for row in rows for text in row]
        if wanted.binary:
            encoded = [text.encode() for text in texts]
            content = b"".join(len(one).to_bytes(4, "little") + one for one in encoded)
        else:
            output["data"] = texts
    else:
        output |= {"datatype": OUTPUT.datatype, "shape": list(probabilities.shape)}
        if wanted.binary:
            content = probabilities.astype("<f4").tobytes()
        else:
            output["data"] = probabilities.ravel().tolist()
    document: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": [output]}
    if wanted.id is not None:
        document["id"] = wanted.id
    if not wanted.binary:
        return Answer(200, orjson.dumps(document), JSON)
    output["parameters"] = {"binary_data_size": len(content)}
    header = orjson.dumps(document)
    length = str(len(header)).encode()
    return Answer(200, header + content, b"application/octet-stream", ((INFERENCE_HEADER, length),))


def _classification(row: list[float], count: int) -> list[str]:
    ranked = sorted(range(CLASS_COUNT), key=row.__getitem__, reverse=True)
    return [f"{row[k]:.6f}:{k}:{LABELS[k]}" for k in ranked[:count]]


def error_answer(problem: Problem) -> Answer:
    """Return a problem as the protocol's error response: ``{"error": "..."}``."""
    text = f"{problem.kind.title.lower()}: {problem.detail}"
    if problem.kind is Kind.INTERNAL:
        text = f"{text} ({problem.instance})"
    return Answer(problem.kind.status, orjson.dumps({"error": text}), JSON, problem.headers)
