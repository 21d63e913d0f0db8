"""Lay out tables for a terminal of any width: cells are wrapped, columns left out, none is cut."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from rich.cells import cell_len

_GAP: Final = "  "
_LEAST_TEXT: Final = 14
"""Characters below which no column of words is wrapped."""


@dataclass(frozen=True)
class Layout:
    """A table's lines of text."""

    header: list[str]
    lines: list[str]
    left_out: list[str]
    """Names of the columns that did not fit."""


@dataclass
class _Column:
    name: str
    cells: list[str]
    is_right: bool

    def __post_init__(self) -> None:
        self.data = max(map(cell_len, self.cells), default=0)
        self.width = max(cell_len(self.name), self.data)

    @property
    def least_with_whole_cells(self) -> int:
        """Width that wraps the name only."""
        return max(self.data, *map(cell_len, self.name.split()))

    @property
    def least(self) -> int:
        """Width that wraps words, but no number."""
        if self.is_right:
            return self.least_with_whole_cells
        return min(self.least_with_whole_cells, _LEAST_TEXT)

    def wrapped(self, text: str) -> list[str]:
        """Return the text in lines of the column's width."""
        if cell_len(text) <= self.width:
            return [text]
        return textwrap.wrap(text, self.width, break_on_hyphens=False)

    def padded(self, text: str) -> str:
        """Return one line of text, filled to the column's width."""
        filling = " " * (self.width - cell_len(text))
        return filling + text if self.is_right else text + filling


_LEAST_WHOLE: Final = attrgetter("least_with_whole_cells")
_LEAST: Final = attrgetter("least")


def lay_out(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
    width: int | None = None,
) -> Layout:
    """Return a table as lines of at most ``width`` characters.

    If the table is too wide, the names of columns are wrapped, then the columns ``spare`` are left
    out in order, then words are wrapped, those of the first column last. If it is still too wide,
    each row becomes a block with a line for each cell. Numbers are never wrapped.

    Args:
        header: names of the columns.
        rows: plain text, one string for each column.
        right: names of the columns aligned right, such as numbers.
        spare: names of the columns that may be left out.
        width: maximum characters in a line; None: no limit, so that each row is one line.
    """
    columns = [
        _Column(name, [row[number] for row in rows], name in right)
        for number, name in enumerate(header)
    ]
    left_out: list[str] = []
    if width is not None:
        for name in ("", *spare):
            columns = [column for column in columns if column.name != name]
            left_out += [name] if name else []
            if _total(columns, _LEAST_WHOLE) <= width:
                break
        if _total(columns, _LEAST) > width:
            return Layout([], _blocks(columns, len(rows)), left_out)
        _narrow(columns, _LEAST_WHOLE, width)
        _narrow(columns[1:], _LEAST, width - columns[0].width - len(_GAP))
        _narrow(columns, _LEAST, width)
    return Layout(
        _lines(columns, [column.name for column in columns], at_bottom=True),
        [
            line
            for number in range(len(rows))
            for line in _lines(columns, [column.cells[number] for column in columns])
        ],
        left_out,
    )


def _total(columns: Sequence[_Column], wide: Callable[[_Column], int]) -> int:
    return sum(map(wide, columns)) + len(_GAP) * (len(columns) - 1)


def _narrow(columns: Sequence[_Column], least: Callable[[_Column], int], width: int) -> None:
    """Narrow the widest columns, down to ``least``, until all fit into ``width``."""
    while columns and _total(columns, lambda one: one.width) > width:
        widest = max(columns, key=lambda one: one.width if one.width > least(one) else 0)
        if widest.width <= least(widest):
            return
        widest.width -= 1


def _lines(
    columns: Sequence[_Column], cells: Sequence[str], *, at_bottom: bool = False
) -> list[str]:
    """Return one row as lines; short cells stand at the top, or at the bottom."""
    wrapped = [column.wrapped(cell) for column, cell in zip(columns, cells, strict=True)]
    height = max(map(len, wrapped))
    blank = [[""] * (height - len(lines)) for lines in wrapped]
    filled = [
        above + lines if at_bottom else lines + above
        for lines, above in zip(wrapped, blank, strict=True)
    ]
    return [
        _GAP.join(
            column.padded(lines[number]) for column, lines in zip(columns, filled, strict=True)
        ).rstrip()
        for number in range(height)
    ]


def _blocks(columns: Sequence[_Column], rows: int) -> list[str]:
    """Return each row as its first cell, and a line for each other cell."""
    longest = max((cell_len(column.name) for column in columns[1:]), default=0)
    return [
        line
        for number in range(rows)
        for line in (
            columns[0].cells[number],
            *(
                f"{_GAP}{column.name:<{longest}}{_GAP}{column.cells[number]}"
                for column in columns[1:]
            ),
        )
    ]
