"""Classes for the command line: a command with examples, and a group that imports lazily."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from cifar10.commands import discovery
from cifar10.suggestions import did_you_mean

OK: Final = 0
ERROR: Final = 1
WRONG_USAGE: Final = 2
FAILED: Final = 3
"""Exit code when part of the work failed and the rest was done."""
REGRESSION: Final = 4
NOTHING_COMPARED: Final = 5
INTERRUPTED: Final = 130
READER_GONE: Final = 141
"""Exit code when the reader of standard output closed it, such as ``head``."""

_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command whose help ends with examples, and which suggests the right name for a misspelt
    option.

    Args:
        examples: lines that can be typed as they are, each optionally followed by two spaces and a
            description.
        notes: paragraphs after the examples, such as exit codes.
    """

    def __init__(self, *args: Any, examples: str = "", notes: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.context_settings = dict(_SETTINGS)
        self.examples = examples.strip("\n")
        self.notes = notes.strip("\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, with our suggestions for a misspelt option."""
        return _parse(self, ctx, args, super().parse_args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the notes without wrapping them."""
        if self.examples:
            formatter.write("\nExamples:\n")
            for line in self.examples.splitlines():
                formatter.write(f"  {line}\n")
        if self.notes:
            formatter.write(f"\n{self.notes}\n")


def command(
    module: str, documentation: str | None, examples: str, notes: str = ""
) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that turns a function into its module's command.

    Args:
        module: the module's ``__name__``; its last part is the command's name.
        documentation: the module's ``__doc__``, used as help; its first line is the summary.
        examples: see :class:`Command`.
        notes: see :class:`Command`.
    """
    name = module.rpartition(".")[2]
    return click.command(name, cls=Command, help=documentation, examples=examples, notes=notes)


class LazyGroup(click.Group):
    """A group that finds names and summaries of its commands without importing them, and imports
    only the command that runs.

    Args:
        places: returns name → place (:mod:`cifar10.commands.discovery`) of the commands.
        notes: paragraphs at the end of the help, such as exit codes.
    """

    def __init__(
        self,
        *args: Any,
        places: Callable[[], dict[str, str]],
        notes: str = "",
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.context_settings = dict(_SETTINGS)
        self._find = places
        self._found: dict[str, str] | None = None
        self._notes = notes

    @property
    def places(self) -> dict[str, str]:
        """Name → place of every command."""
        if self._found is None:
            self._found = self._find()
        return self._found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name; None if there is none."""
        place = self.places.get(cmd_name)
        if place is None:
            return None
        if ":" not in place:
            return group_of(cmd_name, place)
        found: click.Command = discovery.load(place)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, with our suggestions for a misspelt command."""
        name = args[0]
        if name not in self.places and not name.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(name, self.places) or f" Commands: {', '.join(self.places)}."
            message = f"No such command {name!r}.{hint}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, with our suggestions for a misspelt option."""
        return _parse(self, ctx, args, super().parse_args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its summary."""
        rows = [(name, discovery.summary(place)) for name, place in self.places.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes without wrapping them."""
        if self._notes:
            formatter.write(f"\n{self._notes}\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names without importing commands; complete options as click does."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=discovery.summary(place))
            for name, place in self.places.items()
            if name.startswith(incomplete)
        ]


def group_of(name: str, package: str) -> LazyGroup:
    """Return the group of the commands in the folder of ``package``.

    Commands that are also top-level commands (``cifar10 report``) are left out.
    """

    def places() -> dict[str, str]:
        above = set(discovery.top_level().values())
        found = discovery.room(package)
        return {one: place for one, place in found.items() if place not in above}

    return LazyGroup(name, places=places, help=discovery.summary(package) + ".")


def _parse(
    command: click.Command,
    context: click.Context,
    arguments: list[str],
    parse: Callable[[click.Context, list[str]], list[str]],
) -> list[str]:
    try:
        return parse(context, arguments)
    except click.NoSuchOption as error:
        hint = did_you_mean(error.option_name, _option_names(command, context))
        message = f"No such option {error.option_name}.{hint}"
        raise click.UsageError(message, context) from None


def _option_names(command: click.Command, context: click.Context) -> Iterable[str]:
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from (name for name in parameter.opts if name.startswith("--"))
