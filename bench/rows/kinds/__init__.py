"""The kinds of row. Every module here is discovered automatically: a new kind is one new file."""

import importlib
import pkgutil
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from bench.rows.row import Measurement, Row


@cache
def kinds() -> dict[str, type[Measurement]]:
    """Return the class of each kind of row by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found = [each for each in Measurement.__subclasses__() if each.__module__.startswith(__name__)]
    return {each.kind: each for each in sorted(found, key=lambda each: each.kind)}


@cache
def adapter_of(kind: str) -> TypeAdapter[Row]:
    """Return the reader and writer for rows of one kind."""
    row_of_kind: Any = Row
    return TypeAdapter(row_of_kind[kinds()[kind]])
