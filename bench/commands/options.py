"""Options and help text that several bench commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from cifar10.environment import home_dir, results_dir

Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]

EXIT_CODES: Final = """\
Exit codes:
  0    done
  1    an error, in one line
  3    a model or a check failed: its row says why; the others were measured
  130  interrupted: the rows measured so far are kept\
"""

results = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=results_dir,
    metavar="FOLDER",
    help="Folder of the rows (default: CIFAR10_RESULTS, else the project's results/).",
)

output_folder = click.option(
    "--output",
    "output_folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=home_dir,
    metavar="FOLDER",
    help="Folder of REPORT.md and README.md (default: the project).",
)

quick = click.option("--quick", is_flag=True, help="Short functional check; not for publishing.")

resume = click.option(
    "--resume", is_flag=True, help="Continue the newest session and skip its finished measurements."
)

url = click.option("--url", help="URL of a running service (default: start one for each model).")


def rounds(help_text: str, default: int | None = None) -> Decorate:
    """Return a ``--rounds`` option."""
    return click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=default,
        show_default=default is not None,
        help=help_text,
    )


def positive_seconds(help_text: str, default: float | None = None) -> Decorate:
    """Return a ``--seconds`` option that takes a positive number."""
    return click.option(
        "--seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=default is not None,
        help=help_text,
    )
