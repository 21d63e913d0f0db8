"""Show one model or one run: its results, then how they were measured."""

from collections.abc import Sequence
from pathlib import Path

import click

from bench.commands import options
from bench.commands.figures import FIGURES, other_lines, shown
from bench.commands.listing import found_in, print_rows, row_record, rows_about
from bench.rows.files import MachineResults
from bench.rows.row import Row
from bench.rows.selection import ModelResult, released_digests, select
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_text
from cifar10.environment import models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 show simple_cnn                         a model's results on every machine
cifar10 show simple_cnn --rows                  and every row
cifar10 show 3f2a91c0 --json                    all rows of a run, with every sample
""",
)
@click.argument("name", metavar="MODEL|RUN", type=shared.ModelName())
@click.option("--rows", "with_rows", is_flag=True, help="List every row too.")
@options.results
@shared.as_json
def command(name: str, with_rows: bool, results: Path, as_json: bool) -> int:
    """Show a model, or the run whose id begins with NAME."""
    found = found_in(results)
    about = rows_about([row for machine in found for row in machine.rows], name, results)
    if as_json:
        print_json([row_record(row, whole=True) for row in about])
        return OK
    wanted = {id(row) for row in about}
    for machine in found:
        mine = [row for row in machine.rows if id(row) in wanted]
        if mine:
            _show_machine(machine, mine)
    if with_rows:
        print_rows(about)
    return OK


def _show_machine(machine: MachineResults, rows: Sequence[Row]) -> None:
    for result in select(rows, released_digests(models_dir())):
        where = f" on {result.provider}" if result.provider else ""
        _say(f"{result.model}{where}, {machine.name}")
        measured = [figure for figure in FIGURES if figure.value(result) is not None]
        longest = max((len(figure.title) for figure in measured), default=0)
        for figure in measured:
            _say(f"  {figure.title:<{longest}}  {shown(figure, result)}")
        for failure in result.failures:
            _say(f"  failed at {failure.stage}: {failure.message}")
        _settings(result)
    runs = list(dict.fromkeys(row.run_id for row in rows))
    first, last = min(row.created for row in rows)[:10], max(row.created for row in rows)[:10]
    when = first if first == last else f"{first} to {last}"
    if len(runs) == 1:
        for line in other_lines(rows, runs[0]):
            _say(f"  {line}")
    _say(f"  rows {len(rows)}, runs {len(runs)}, {when}; newest run {runs[-1]}")
    versions = ", ".join(f"{name} {version}" for name, version in rows[-1].versions.items())
    _say(f"  versions: {versions}")
    _say("")


def _settings(result: ModelResult) -> None:
    file = "the store's" if result.released else "not in the store"
    _say(f"  file {result.digest[:12]}…, {file}" if result.digest else "  file unknown")
    if result.cost is not None:
        seed = "" if result.cost.seed is None else f", seed {result.cost.seed}"
        _say(f"  recipe {result.cost.recipe}, {result.cost.precision}{seed}")
    if result.dataset is not None:
        _say(f"  data {result.dataset.variant}, {result.dataset.fingerprint[:12]}…")
    if result.quick:
        _say("  quick: not for publishing")


def _say(line: str) -> None:
    print_text(line, indent=4)
