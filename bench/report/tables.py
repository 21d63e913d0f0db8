"""Tables: a list of columns over rows, one description for Markdown, HTML, CSV and the terminal.

What a section yields is a :data:`Block`: Markdown text, a table, or the name of a picture.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from rich.table import Table as TerminalTable

T = TypeVar("T")
Align = Literal["left", "right"]
Value = float | int | str | None
_RULES: Final = {"left": ":--", "right": "--:"}


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column."""

    title: str
    text: Callable[[T], str]
    """The cell for people: rounded, inline Markdown."""
    align: Align = "right"
    sort: Callable[[T], Value] | None = None
    """What a sortable table sorts by; None: not sortable."""
    exact: tuple[tuple[str, Callable[[T], Value]], ...] = ()
    """CSV columns: name with its unit, and the unrounded value."""


def words(title: str, text: Callable[[T], str]) -> Column[T]:
    """Make a column of words, aligned to the left."""
    return Column(title, text, "left")


@dataclass(frozen=True)
class Table(Generic[T]):
    """Columns over rows."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]
    caption: str = ""
    """Shown above the HTML table, which is sortable then."""

    @property
    def cells(self) -> list[list[str]]:
        """Text of each cell, row by row."""
        return [[column.text(row) for column in self.columns] for row in self.rows]

    @property
    def sortable_cells(self) -> list[list[tuple[str, str]]]:
        """(text, sort key) of each cell, row by row."""
        return [
            [(column.text(row), _sort_key(column, row)) for column in self.columns]
            for row in self.rows
        ]

    def markdown(self) -> str:
        """The table in GitHub-flavoured Markdown."""
        lines = [_line([column.title for column in self.columns])]
        lines.append(_line([_RULES[column.align] for column in self.columns]))
        lines += [_line([_cell(cell) for cell in cells]) for cells in self.cells]
        return "\n".join(lines)

    def csv(self) -> str:
        """Exact values as CSV (RFC 4180, but with plain line feeds); empty where there is none."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([name for column in self.columns for name, _ in column.exact])
        writer.writerows(record.values() for record in self.records())
        return buffer.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """Exact values of each row, by the CSV's names."""
        return [
            {name: value(row) for column in self.columns for name, value in column.exact}
            for row in self.rows
        ]

    def terminal(self) -> TerminalTable:
        """The table for a terminal."""
        table = TerminalTable()
        for column in self.columns:
            table.add_column(column.title, justify=column.align)
        for cells in self.cells:
            table.add_row(*cells)
        return table


@dataclass(frozen=True)
class Picture:
    """A picture of the report, by its name."""

    name: str


Block = str | Table[Any] | Picture


def to_markdown(blocks: Sequence[Block], pictures: dict[str, str]) -> str:
    """Blocks as Markdown; pictures are looked up by name, and left out where there is none."""
    parts = []
    for block in blocks:
        if isinstance(block, Table):
            parts.append(block.markdown())
        elif isinstance(block, Picture):
            parts.append(pictures.get(block.name, ""))
        else:
            parts.append(block.strip())
    return "\n\n".join(part for part in parts if part)


def _sort_key(column: Column[T], row: T) -> str:
    value = column.sort(row) if column.sort else None
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(float(value))


def _cell(text: str) -> str:
    """A cell on one line with its bars escaped: nothing in it can end the cell or the row."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
