"""Bound the number of fields of a gRPC message before it is parsed.

A field of two bytes can become an object of a hundred, so that ten megabytes of empty fields would
take a gigabyte.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Mapping
from typing import Any, Final

from service.problems import malformed

_Known = Mapping[int, Any]
"""Field number → known fields of the message in it."""

_PARAMETER: Final[_Known] = {2: {}}
_INPUT: Final[_Known] = {4: _PARAMETER, 5: {}}
_OUTPUT: Final[_Known] = {2: _PARAMETER}
INFER_REQUEST: Final[_Known] = {4: _PARAMETER, 5: _INPUT, 6: _OUTPUT}
"""Messages in a ModelInferRequest: parameters, inputs and outputs."""

_FEW: Final = 256
"""Allowance for fields that are not images."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_structure(message: bytes, most: int) -> None:
    """Refuse a ModelInferRequest with more fields than one with ``most`` images can have.

    Raises:
        Problem: 400 for too many fields, or for bytes that are not fields.
    """
    _count(message, 0, len(message), INFER_REQUEST, most + _FEW)


def _count(message: bytes, position: int, end: int, known: _Known, left: int) -> int:
    """Return how many fields are ``left`` after those from ``position`` to ``end``."""
    while position < end:
        left -= 1
        if left < 0:
            detail = "the message has more fields than a request of so many images can have"
            raise malformed(detail)
        tag, position = _varint(message, position, end)
        kind, number = tag & 7, tag >> 3
        if kind == _LENGTH:
            length, position = _varint(message, position, end)
            inner_end = position + length
            if inner_end <= end and number in known:
                left = _count(message, position, inner_end, known[number], left)
            position = inner_end
        elif kind == _VARINT:
            _, position = _varint(message, position, end)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise _no_message()
    if position != end:
        raise _no_message()
    return left


def _varint(message: bytes, position: int, end: int) -> tuple[int, int]:
    """Return (value, position after it) of a number in at most ten bytes."""
    value = shift = 0
    while position < end and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _no_message()


def _no_message() -> Exception:
    detail = "the message is not a ModelInferRequest"
    return malformed(detail)
