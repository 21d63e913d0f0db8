"""Print the output of commands: results to standard output, everything else to standard error.

On a terminal, tables are formatted to its width. In a file or a pipe, each row is one plain line,
never shortened. ``NO_COLOR`` is honoured, by rich and by this module.
"""

import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH: Final = 10_000


@cache
def errors() -> "Console":
    """Return the console of standard error, for progress, warnings and failures."""
    from rich.console import Console  # takes a tenth of a second, which `--help` need not spend

    return Console(stderr=True, highlight=False)


@cache
def output() -> "Console":
    """Return the console of standard output. In a pipe it neither truncates nor wraps."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)


def forget_consoles() -> None:
    """Discard the cached consoles, because the streams or the environment have changed."""
    errors.cache_clear()
    output.cache_clear()


def say_error(message: str) -> None:
    """Print an error to standard error, prefixed with ``error:``."""
    click.echo(f"{colour('error:', 'red')} {message}", err=True)


def colour(text: str, shade: str) -> str:
    """Return ``text`` coloured, unless NO_COLOR is set. In a pipe, click removes the colour."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=shade)


def as_json(value: Any) -> str:
    """Return ``value`` as indented JSON, with keys in their order and without a final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON to standard output."""
    click.echo(as_json(value))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table to standard output.

    Args:
        header: names of the columns; the first column is never shortened or wrapped.
        rows: plain text, one string per column.
        right: names of the columns to align right, such as numbers.
    """
    console = output()
    if not console.is_terminal:
        _print_plain(header, rows, right)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(header):
        justify = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=not number or name in right)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_plain(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> None:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


class WarningLines(logging.Handler):
    """Logging handler that prints warnings to standard error without disturbing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        from rich.text import Text

        text = Text(f"{record.levelname.lower()}: {record.getMessage()}")
        errors().print(text, soft_wrap=True)
