"""How a command ends: its exit code, and what it says of what it measured."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from bench.commands.listing import as_json
from bench.measure.in_process import RunOutcome
from bench.rows.files import Row, read_results
from bench.rows.machine import read_machine

OK: Final = 0
ERROR: Final = 1
MODEL_FAILED: Final = 3
REGRESSION: Final = 4
INTERRUPTED: Final = 130

_PIPE_WIDTH: Final = 160


def conclude(outcome: RunOutcome, errors: Console, options: argparse.Namespace) -> int:
    """Say what was measured and what failed; the exit code."""
    if options.json:
        print(as_json(asdict(outcome)))  # noqa: T201 - for a program, not for a person
    for model, reason in outcome.failed.items():
        errors.print(f"[red]{escape(model)}[/] {escape(reason)}", highlight=False, soft_wrap=True)
    if outcome.measured:
        errors.print(f"measured: {', '.join(outcome.measured)}", highlight=False, soft_wrap=True)
    if outcome.interrupted:
        errors.print("interrupted: what was measured is kept")
        return INTERRUPTED
    return MODEL_FAILED if outcome.failed else OK


def rows_here(results: Path) -> list[Row]:
    """The rows of this machine."""
    name = read_machine().name
    return [row for here in read_results(results) if here.name == name for row in here.rows]


def standard_output() -> Console:
    """Where results go: wide enough for a program that reads a pipe."""
    output = Console()
    return output if output.is_terminal else Console(width=_PIPE_WIDTH)  # a pipe cuts nothing
