"""Print the leaderboard: every model measured on a machine, best first."""

from functools import partial
from pathlib import Path

import click

from bench.commands import options
from bench.commands.figures import BY_NAME, FIGURES, LEADERBOARD, SPARE, record, shown
from bench.commands.listing import chosen_machine
from bench.commands.output import say
from bench.report.shown import CIFAR10, by_dataset
from bench.report.tables import Column, Table, to_csv, words
from bench.rows.selection import ModelResult, released_digests, select
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_table
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.suggestions import did_you_mean


@make_command(
    __name__,
    __doc__,
    f"""\
cifar10 table                                   this machine's models, the most accurate first
cifar10 table --sort latency --top 5            the five fastest
cifar10 table --sort requests --reverse --json
cifar10 table --all                             every figure, a block of lines for each model
cifar10 table --csv                             every figure, unrounded

Sort keys: {", ".join(figure.name for figure in FIGURES)}.
""",
)
@click.option(
    "--sort",
    "key",
    default="accuracy",
    show_default=True,
    metavar="FIGURE",
    help="Figure to sort by; models without it come last.",
)
@click.option("--reverse", is_flag=True, help="The worst first.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Show only the first N.")
@click.option(
    "--machine",
    metavar="NAME",
    help="Machine whose rows to show (default: this one, else the last one measured).",
)
@options.results
@click.option("--all", "whole", is_flag=True, help="Show every figure.")
@click.option("--csv", "as_csv", is_flag=True, help="Print every figure as CSV.")
@shared.as_json
def command(
    key: str,
    reverse: bool,
    top: int | None,
    machine: str | None,
    results: Path,
    whole: bool,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Print one line a model; a table for each data set."""
    if key not in BY_NAME:
        message = f"no figure {key!r}; there are: {', '.join(BY_NAME)}."
        raise BenchError(message + did_you_mean(key, BY_NAME))
    chosen = chosen_machine(results, machine)
    figure = BY_NAME[key]
    found = [
        one
        for one in select(chosen.rows, released_digests(models_dir()))
        if one.cost is not None and not one.has_random_weights
    ]
    with_it = [one for one in found if figure.value(one) is not None]
    with_it.sort(
        key=lambda one: figure.value(one) or 0.0, reverse=figure.higher_is_better is not reverse
    )
    ordered = [*with_it, *(one for one in found if figure.value(one) is None)][:top]
    if as_json:
        print_json({"machine": chosen.name, "models": [record(one) for one in ordered]})
        return OK
    if as_csv:
        records = [record(one) for one in ordered]
        header = list(records[0]) if records else []
        click.echo(to_csv(header, [list(one.values()) for one in records]), nl=False)
        return OK
    names = [figure.name for figure in FIGURES] if whole else list(LEADERBOARD)
    names += [key] if key not in names else []
    left_out: list[str] = []
    groups = by_dataset(ordered)
    for data in sorted(groups, key=lambda name: name != CIFAR10):
        if len(groups) > 1:
            click.echo(f"data set {data}")
        left_out += _print(groups[data], names, [] if whole else [n for n in SPARE if n != key])
        names = [name for name in names if BY_NAME[name].title not in left_out]
    variants = {one.dataset.variant for one in ordered if one.dataset is not None}
    say(f"machine: {chosen.name}; data: {', '.join(sorted(variants)) or 'none'}")
    if any(not one.released for one in ordered):
        say("* of a file that is not in the model store")
    if left_out:
        say(f"not shown: {'; '.join(left_out)} (--all, --csv and --json show every figure)")
    return OK


def _print(ordered: list[ModelResult], names: list[str], spare: list[str]) -> list[str]:
    """Print the models of one data set; accuracies on different ones are not comparable.

    Returns:
        Titles of the columns that had no room.
    """
    variants = {one.dataset.variant for one in ordered if one.dataset is not None}
    columns: list[Column[ModelResult]] = [
        words("Model", lambda one: one.model if one.released else f"{one.model} *"),
        *(Column(BY_NAME[name].title, partial(shown, BY_NAME[name])) for name in names),
    ]
    if len(variants) > 1:
        columns.append(words("Data", lambda one: one.dataset.variant if one.dataset else "–"))
    table: Table[ModelResult] = Table(columns, ordered)
    return print_table(
        table.titles,
        table.cells,
        right=table.numeric,
        spare=[BY_NAME[name].title for name in spare],
    )
