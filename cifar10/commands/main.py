"""Run the command line and report every expected failure in one line, without a traceback."""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from cifar10.commands import discovery
from cifar10.commands.command import (
    ERROR,
    INTERRUPTED,
    READER_GONE,
    LazyGroup,
)
from cifar10.commands.terminal import WarningLines, forget_consoles, say_error
from cifar10.errors import Cifar10Error

PROGRAM: Final = "cifar10"

ORDER: Final = (
    "data", "list", "train", "study", "export", "predict", "serve", "bench", "report", "table",
    "compare", "ls", "show", "doctor",
)  # fmt: skip
"""Order of the commands in the help; any others follow."""

_NOTES: Final = """\
Exit codes:
  0    done
  1    an error, in one line on standard error
  2    wrong usage
  3    part of the work failed, with the reason printed; the rest was done
  4    compare: something became worse than the tolerance allows
  5    compare: nothing could be compared
  130  interrupted with Ctrl-C; finished work is kept

Completion for bash (or zsh, fish), in the shell's start file:
  eval "$(_CIFAR10_COMPLETE=bash_source cifar10)"\
"""


class _Root(LazyGroup):
    """The group of all commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Report a failure of ours or of the system in one line."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except Cifar10Error as error:
            say_error(str(error))
            return ERROR
        except ModuleNotFoundError as error:
            install = discovery.install_command(error.name or "")
            if install is None:
                raise
            say_error(
                f"`{_command_line(ctx)}` needs the Python package {error.name}, which is not "
                f"installed: {install}"
            )
            return ERROR
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except OSError as error:
            return _system_error(error)
        return result

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage line with the program's own name."""
        formatter.write_usage(PROGRAM, "[OPTIONS] COMMAND [ARGUMENTS]...")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: the arguments after the program's name; None: this process's own.
    """
    forget_consoles()
    logging.basicConfig(level=logging.WARNING, handlers=[WarningLines()])
    try:
        result = root_group().main(
            None if arguments is None else list(arguments),
            prog_name=PROGRAM,
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except OSError as error:  # such as `--help` into a closed pipe
        return _system_error(error)
    return result if isinstance(result, int) else 0


def root_group() -> LazyGroup:
    """Return the group of all commands."""
    return _Root(
        PROGRAM,
        places=_places,
        help="Train, export, serve and measure small image classifiers.",
        notes=_NOTES,
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Print the version and exit.",
            )
        ],
    )


def _places() -> dict[str, str]:
    found = discovery.top_level()
    rest = sorted(set(found) - set(ORDER))
    return {name: found[name] for name in (*ORDER, *rest) if name in found}


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {discovery.version()}")
        ctx.exit()


def _command_line(ctx: click.Context) -> str:
    return " ".join([PROGRAM, *([ctx.invoked_subcommand] if ctx.invoked_subcommand else [])])


def _system_error(error: OSError) -> int:
    if error.errno == errno.EPIPE:
        _discard_output()
        return READER_GONE
    reason = error.strerror or str(error)
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    if not where and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        where = "cannot write the output: "
    _discard_output()
    with contextlib.suppress(OSError):
        say_error(f"{where}{reason}")
    return ERROR


def _discard_output() -> None:
    """Discard buffered output, so that the interpreter does not try to write it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
