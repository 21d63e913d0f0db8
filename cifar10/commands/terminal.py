"""Print the output of commands: results to standard output, everything else to standard error.

On a terminal, tables are laid out for its width, and no cell is cut. In a file or a pipe, each row
is one line. ``NO_COLOR`` is honoured, by rich and by this module.
"""

import json
import logging
import os
import shutil
import textwrap
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
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> list[str]:
    """Print a table to standard output.

    Args:
        header: names of the columns.
        rows: plain text, one string per column.
        right: names of the columns to align right, such as numbers.
        spare: names of the columns to leave out where there is no room, the first first. A pipe
            then has COLUMNS or 80 characters; without spare columns, each row is one line of it.

    Returns:
        Names of the columns left out.
    """
    from cifar10.commands.layout import lay_out

    width = line_width()
    if width is None and spare:
        width = shutil.get_terminal_size().columns
    laid_out = lay_out(header, rows, right=right, spare=spare, width=width)
    for line in laid_out.header:
        click.echo(line if os.environ.get("NO_COLOR") else click.style(line, bold=True))
    if laid_out.header and output().is_terminal:
        click.echo("─" * max(map(len, [*laid_out.header, *laid_out.lines])))
    for line in laid_out.lines:
        click.echo(line)
    return laid_out.left_out


def print_text(text: str, *, indent: int = 0, taken: int = 0) -> None:
    """Print one paragraph to standard output, wrapped between words on a terminal.

    Args:
        text: the paragraph, as plain text.
        indent: spaces before its second and later lines.
        taken: characters already on its first line.
    """
    width = line_width()
    if width is None or taken + len(text) <= width:
        click.echo(text)
        return
    wrapped = textwrap.fill(
        "." * taken + text,
        width,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    click.echo(wrapped[taken:])


def line_width() -> int | None:
    """Return the width of the terminal, or None in a file or a pipe, whose lines have no end."""
    return output().width if output().is_terminal else None


class WarningLines(logging.Handler):
    """Logging handler that prints warnings to standard error without disturbing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        from rich.text import Text

        text = Text(f"{record.levelname.lower()}: {record.getMessage()}")
        errors().print(text, soft_wrap=True)
