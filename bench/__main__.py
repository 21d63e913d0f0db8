"""``python -m bench``: measure, report, list. See ``--help``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

from bench.commands import measuring as measuring_commands
from bench.commands import reading as reading_commands
from bench.commands.arguments import build_parser
from bench.commands.console import set_up_logging
from bench.commands.outcomes import ERROR, INTERRUPTED
from bench.commands.whole import measure_everything
from cifar10.errors import Cifar10Error

Command = Callable[[argparse.Namespace, Console], int]
"""Takes the options and where to tell what goes on; gives the exit code."""

COMMANDS: Final[dict[str, Command]] = {
    "run": measuring_commands.run,
    "load": measuring_commands.load,
    "verify": measuring_commands.verify,
    "scenarios": measuring_commands.scenarios,
    "robustness": measuring_commands.robustness,
    "resources": measuring_commands.resources,
    "sensitivity": measuring_commands.sensitivity,
    "chaos": measuring_commands.chaos,
    "peers": measuring_commands.peers,
    "bulk": measuring_commands.bulk,
    "settings": measuring_commands.settings,
    "all": measure_everything,
    "report": reading_commands.report,
    "compare": reading_commands.compare_rows,
    "show": reading_commands.show,
    "ls": reading_commands.ls,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = build_parser().parse_args(arguments)
    errors = Console(stderr=True)
    set_up_logging(errors)
    try:
        return COMMANDS[options.command](options, errors)
    except Cifar10Error as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return ERROR
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
