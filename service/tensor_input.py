"""Rules of an inference request's tensors, shared by REST and gRPC.

A request has one input, either pixels (UINT8) or encoded images (BYTES), and at most one output. A
model's card gives the shape of its images and its labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import ModelCard
from service.problems import Problem, malformed, too_many_images

ENCODED: Final = "BYTES"
"""Datatype of a tensor of encoded images."""

MAX_ID_CHARACTERS: Final = 1_024
"""Longest request id accepted; the id is repeated in the answer."""

_LENGTH_BYTES: Final = 4
"""Bytes of the length, little-endian, before each element of a BYTES tensor."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A decoded inference request."""

    id: str
    """Empty if the request has none."""
    images: NDArray[np.uint8] | tuple[bytes, ...]
    """uint8 (N, H, W, 3), RGB, of the model's size; or N encoded images."""
    binary: bool
    """Whether to send the probabilities as bytes after the JSON."""
    classes: int
    """Number of top classes to return, each as ``probability:class id:label``; 0: return the
    probabilities themselves."""


def whole(value: object) -> int | None:
    """Return a JSON number as an integer, also if it is written as ``12.0``; None if it is not an
    integer."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def check_id(identifier: str) -> str:
    """Return a request's id.

    Raises:
        Problem: 400 if it is too long to be repeated in the answer.
    """
    if len(identifier) > MAX_ID_CHARACTERS:
        detail = f"'id' has {len(identifier):,} characters; the limit is {MAX_ID_CHARACTERS:,}"
        raise malformed(detail)
    return identifier


def count_images(datatype: object, shape: Sequence[int] | None, card: ModelCard, most: int) -> int:
    """Return the number of images that an input's datatype and shape announce.

    Args:
        datatype: the input's datatype.
        shape: its shape; None if it is not a list of integers.
        card: the model's card.
        most: maximum number of images.

    Raises:
        Problem: 400 for a datatype or a shape that the model does not take, 413 for too many
            images.
    """
    name, expected = card.input.name, card.input.datatype
    if datatype not in (expected, ENCODED):
        kind = datatype[:16] if isinstance(datatype, str) else "missing"
        detail = (
            f"the datatype of {name!r} is {kind}; expected {expected}: pixels as whole numbers "
            f"from 0 to 255, because scaling is part of the model; or {ENCODED}: encoded images"
        )
        raise malformed(detail)
    inner = list(card.input.shape[1:])
    found = list(shape or ())
    fits = found[1:] == inner if datatype == expected else found[1:] in ([], [1])
    if not found or not fits or found[0] < 1:
        sizes = f"[N, {', '.join(map(str, inner))}]" if datatype == expected else "[N] or [N, 1]"
        detail = f"the shape of the {datatype} input {name!r} is not {sizes} with N of at least 1"
        raise malformed(detail)
    if found[0] > most:
        raise too_many_images(most)
    return found[0]


def take_pixels(flat: NDArray[np.uint8], count: int, card: ModelCard) -> NDArray[np.uint8]:
    """Return ``count`` images from their pixels in one row: uint8 (count, H, W, 3).

    Raises:
        Problem: 400 for more or fewer pixels.
    """
    shape = (count, *card.input.shape[1:])
    expected = math.prod(shape)
    if flat.size != expected:
        detail = f"the shape has {expected:,} values, but the data has {flat.size:,}"
        raise malformed(detail)
    return flat.reshape(shape)


def split_elements(raw: memoryview, count: int) -> tuple[bytes, ...]:
    """Return the elements of a BYTES tensor. Each is preceded by its length in four bytes.

    Raises:
        Problem: 400 if the bytes are not exactly ``count`` elements.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw) and len(elements) < count:
        begin = position + _LENGTH_BYTES
        position = begin + int.from_bytes(raw[position:begin], "little")
        elements.append(bytes(raw[begin:position]))
    if position != len(raw) or len(elements) != count:
        detail = (
            f"the {ENCODED} tensor is not {count:,} elements, each with its length before it as a "
            "4-byte little-endian number"
        )
        raise malformed(detail)
    return tuple(elements)


def refuse_shared_memory(parameters: Mapping[str, Any], tensor: str) -> None:
    """Refuse a tensor in a shared-memory region, which this server can neither read nor write.

    Raises:
        Problem: 400 if ``parameters`` name a region.
    """
    if "shared_memory_region" in parameters:
        detail = (
            f"{tensor} is in a shared-memory region, and this server supports no shared memory: "
            "send and receive tensors in the messages themselves"
        )
        raise malformed(detail)


def check_names(inputs: Sequence[object], outputs: Sequence[object], card: ModelCard) -> None:
    """Check the names of a request's inputs and outputs.

    Raises:
        Problem: 400 unless there is exactly the model's input and at most its output.
    """
    if list(inputs) != [card.input.name]:
        detail = f"expected exactly one input, named {card.input.name!r}"
        raise malformed(detail)
    if list(outputs) not in ([], [card.output.name]):
        detail = f"expected at most one output, named {card.output.name!r}"
        raise malformed(detail)


def check_classes(value: object, card: ModelCard) -> int:
    """Validate the request's number of classes and return it, limited to those of the model.

    Raises:
        Problem: 400 if ``value`` is not a whole number.
    """
    classes = whole(value)
    if classes is None or classes < 0:
        detail = "'classification' is not a number of classes"
        raise malformed(detail)
    return min(classes, len(card.labels))


def refusal_of_element(problem: Problem, index: int, count: int) -> Problem:
    """Return the problem of one encoded image as the problem of the request that contains it."""
    where = f"image {index} of {count}, counted from 0: " if count > 1 else ""
    return Problem(problem.kind, f"{where}{problem.detail}", headers=problem.headers)


def classification(row: Sequence[float], count: int, labels: Sequence[str]) -> list[str]:
    """Return the ``count`` most probable classes, each as ``probability:class id:label``."""
    ranked = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    return [f"{row[k]:.6f}:{k}:{labels[k]}" for k in ranked[:count]]


def join_elements(texts: Sequence[str]) -> bytes:
    """Return a BYTES tensor of ``texts``; see :func:`split_elements`."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(one).to_bytes(_LENGTH_BYTES, "little") + one for one in encoded)
