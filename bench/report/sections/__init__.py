"""Sections of the report. Every module here is found automatically: a new section is one new file
with a ``SECTIONS``."""

import importlib
import pkgutil
from functools import cache

from bench.report.shown import Section


@cache
def all_sections() -> tuple[Section, ...]:
    """Return all sections, in the order shown."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    ]
    found: list[Section] = [one for module in modules for one in module.SECTIONS]
    return tuple(sorted(found, key=lambda section: section.place))
