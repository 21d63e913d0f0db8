"""Convert frozen dataclasses to JSON and back, checked field by field.

A field that is missing, unknown, of the wrong type or outside what JSON can carry (NaN, infinity,
integers above 64 bits, lone surrogates) is an error that names it, never a default.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

MAX_BYTES: Final = 8 << 20
"""Largest JSON text that is parsed. The largest card so far has 13 kB."""

MAX_DEPTH: Final = 32
"""Deepest nesting of objects and lists."""

_INT64: Final = range(-(1 << 63), 1 << 63)


class RecordError(ValueError):
    """The JSON does not describe the record; the message names the field."""


def to_json(record: Any) -> str:
    """Return a dataclass instance as indented JSON with a final newline."""
    return json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n"


def from_json(
    record_type: type[T], text: str | bytes, added_later: Mapping[str, Any] | None = None
) -> T:
    """Read one ``record_type`` (a dataclass) from JSON.

    Args:
        record_type: the dataclass.
        text: the JSON.
        added_later: fields that older files lack → their values; a mapping completes the object
            of that name in the file.

    Raises:
        RecordError: not JSON, larger than :data:`MAX_BYTES`, or a field is missing, unknown, of the
            wrong type or not to be carried by JSON.
    """
    value = _parse(text, record_type.__name__)
    if isinstance(value, dict):
        value = _completed(value, added_later or {})
    result: T = _read(record_type, value, record_type.__name__)
    return result


def _parse(text: str | bytes, where: str) -> Any:
    """Return the parsed JSON. Its numbers are finite and fit 64 bits, its text encodes to UTF-8."""
    if len(text) > MAX_BYTES:
        message = f"{where}: {len(text):,} bytes, expected at most {MAX_BYTES:,}"
        raise RecordError(message)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        message = f"not JSON: {error}"
        raise RecordError(message) from error
    _check(value, where, MAX_DEPTH)
    return value


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not a number of JSON"
    raise ValueError(message)


def _check(value: Any, where: str, depth: int) -> None:
    if isinstance(value, dict | list):
        if not depth:
            raise _too_deep(where)
        if isinstance(value, list):
            for index, item in enumerate(value):
                _check(item, f"{where}[{index}]", depth - 1)
            return
        for key, item in value.items():
            _check(key, where, depth)
            _check(item, f"{where}.{key}", depth - 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{where}: expected text, got {value[:80]!a}, which has a lone surrogate"
            raise RecordError(message) from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            message = f"{where}: expected a finite number, got {value}"
            raise RecordError(message)
    elif isinstance(value, int) and value not in _INT64:
        message = (
            f"{where}: expected an integer of at most 64 bits, got one of {value.bit_length()}"
        )
        raise RecordError(message)


def _too_deep(where: str) -> RecordError:
    return RecordError(f"{where}: objects and lists are nested more than {MAX_DEPTH} deep")


def _completed(value: dict[str, Any], added_later: Mapping[str, Any]) -> dict[str, Any]:
    completed = {**added_later, **value}
    for name, added in added_later.items():
        if isinstance(added, Mapping) and isinstance(completed[name], dict):
            completed[name] = _completed(completed[name], added)
    return completed


def _read(expected: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _read_dataclass(expected, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _read(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(kinds) != len(value):
            raise _wrong(where, f"{len(kinds)} items", value)
        return tuple(
            _read(kind, item, f"{where}[{index}]")
            for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(where, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if expected is Any:
        return value
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise _wrong(where, expected.__name__, value)
    return value


def _read_dataclass(expected: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    kinds = typing.get_type_hints(expected)
    names = [field.name for field in dataclasses.fields(expected)]
    missing = [name for name in names if name not in value]
    unknown = [name for name in value if name not in names]
    if missing or unknown:
        message = f"{where}: missing fields {missing}, unknown fields {unknown}"
        raise RecordError(message)
    return expected(**{name: _read(kinds[name], value[name], f"{where}.{name}") for name in names})


def _wrong(where: str, expected: str, value: Any) -> RecordError:
    shown = json.dumps(value, ensure_ascii=False)
    return RecordError(f"{where}: expected {expected}, got {shown[:80]}")
