"""Tables: a list of columns over rows, one description for HTML, Markdown, CSV and the terminal.

What a section yields is a :data:`Block`: Markdown text, a table or a picture.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar

from bench.report.charts.svg import Panel, draw, draw_file, marker

T = TypeVar("T")
Align = Literal["left", "right"]
_RULES: Final = {"left": ":--", "right": "--:"}

MOST_ROWS: Final = 6
"""Rows of a table in ``REPORT.md``; a longer one is a CSV file instead."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column."""

    title: str
    text: Callable[[T], str]
    """Cell for people: rounded, inline Markdown."""
    align: Align = "right"
    extra: bool = False
    """Whether it is hidden until "more columns" is chosen."""


def words(title: str, text: Callable[[T], str], *, extra: bool = False) -> Column[T]:
    """Return a column of words, aligned to the left."""
    return Column(title, text, "left", extra)


@dataclass(frozen=True)
class Table(Generic[T]):
    """Columns over rows."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]
    name: str = ""
    """Stem of its CSV file; without one, ``REPORT.md`` has all rows."""
    top: int = 0
    """Number of rows shown until "all models" is chosen; 0 is all."""

    @property
    def titles(self) -> list[str]:
        """Titles of the columns."""
        return [column.title for column in self.columns]

    @property
    def numeric(self) -> list[str]:
        """Titles of the columns that are aligned to the right."""
        return [column.title for column in self.columns if column.align == "right"]

    @cached_property
    def cells(self) -> list[list[str]]:
        """Text of each cell, row by row."""
        return [[column.text(row) for column in self.columns] for row in self.rows]

    def short(self) -> "Table[T]":
        """Return the table without its extra columns and rows."""
        shown = [column for column in self.columns if not column.extra]
        return Table(shown, self.rows[: self.top or None])

    def markdown(self) -> str:
        """Return the table in GitHub-flavoured Markdown."""
        lines = [_line(self.titles), _line([_RULES[column.align] for column in self.columns])]
        lines += [_line([_cell(cell) for cell in cells]) for cells in self.cells]
        return "\n".join(lines)

    def csv(self) -> str:
        """Return the cells as CSV (RFC 4180, but with plain line feeds), without Markdown."""
        plain = [[re.sub(r"[`*]|~~", "", cell) for cell in cells] for cells in self.cells]
        return to_csv(self.titles, plain)


def to_csv(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return lines as CSV (RFC 4180, but with plain line feeds)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A chart of one panel or several."""

    name: str
    shows: str
    """One sentence on what it shows, in Markdown."""
    panels: Sequence[Panel]
    legend: Sequence[tuple[int, str]] = ()
    """Look and name of each model, where the marks have no labels."""

    @property
    def svgs(self) -> list[str]:
        """The panels as ``<svg>`` elements."""
        return [draw(panel, panel.title or self.shows) for panel in self.panels]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Marker, as an ``<svg>`` element, and name of each model in the legend."""
        box = '<svg viewBox="-6 -6 12 12" aria-hidden="true">'
        return [(f"{box}{marker(look)}</svg>", name) for look, name in self.legend]

    def file(self) -> str:
        """Return the whole chart as an SVG file."""
        return draw_file(self.panels, self.shows, self.legend)


Block = str | Table[Any] | Picture


def to_markdown(blocks: Sequence[Block], pictures: dict[str, str], folder: str = "") -> str:
    """Return blocks as Markdown.

    Args:
        blocks: what to render.
        pictures: link to each picture by name; others are left out.
        folder: link to the folder of CSV files, for tables that are too long.
    """
    parts = []
    for block in blocks:
        if isinstance(block, Table):
            if block.name and len(block.rows) > MOST_ROWS:
                link = f"[{block.name}.csv]({folder}/{block.name}.csv)"
                parts.append(f"{len(block.rows)} rows: {link}")
            elif block.rows:
                parts.append(block.short().markdown())
        elif isinstance(block, Picture):
            if block.name in pictures:
                alternative = block.name.replace("_", " ")
                parts.append(f"![{alternative}]({pictures[block.name]})\n\n{block.shows}")
        else:
            parts.append(block.strip())
    return "\n\n".join(part for part in parts if part)


def _cell(text: str) -> str:
    """Return a cell on one line, its bars escaped, so that nothing in it can end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
