"""List the measured models of each machine, one line each; or the runs."""

from collections.abc import Iterable
from pathlib import Path

import click

from bench.commands import options
from bench.commands.listing import found_in, listing_record
from bench.rows.files import MachineResults
from bench.rows.row import Row
from bench.rows.selection import released_digests
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_table
from cifar10.environment import models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 ls
cifar10 ls --runs                               the runs, newest last: ids for compare and show
cifar10 ls --results /media/usb/results
cifar10 ls --json                               every row, without its samples
""",
)
@click.option("--runs", is_flag=True, help="List the runs instead, with their ids.")
@options.results
@shared.as_json
def command(runs: bool, results: Path, as_json: bool) -> int:
    """Print a line for each model, or for each run, on each machine."""
    found = found_in(results)
    if as_json:
        print_json(listing_record(found))
        return OK
    if runs:
        _print_runs(found)
        return OK
    digests = released_digests(models_dir())
    for machine in found:
        lines = []
        models: dict[str, list[Row]] = {}
        for row in machine.rows:
            models.setdefault(row.model or "(none)", []).append(row)
        for model, rows in sorted(models.items()):
            files = {row.digest for row in rows if row.digest}
            current = "yes" if digests.get(model, "-") in files else "no"
            newest = max(row.created for row in rows)[:10]
            kinds = len({row.kind for row in rows})
            lines.append([model, str(kinds), str(len(rows)), newest, current])
        click.echo(f"machine {machine.name}")
        print_table(
            ["Model", "Kinds", "Rows", "Newest", "In store"], lines, right=("Kinds", "Rows")
        )
    return OK


def _print_runs(machines: Iterable[MachineResults]) -> None:
    """Print a line for each run, in order of time."""
    for machine in machines:
        lines = []
        by_run: dict[str, list[Row]] = {}
        for row in machine.rows:
            by_run.setdefault(row.run_id, []).append(row)
        for run, rows in by_run.items():
            models = sorted({row.model for row in rows if row.model})
            named = models[0] if len(models) == 1 else f"{len(models)} models"
            kinds = sorted({row.kind for row in rows})
            measured = kinds[0] if len(kinds) == 1 else f"{len(kinds)} kinds of rows"
            begun = min(row.created for row in rows)
            lines.append([begun, run, named, measured, str(len(rows))])
        lines.sort()
        for line in lines:
            line[0] = line[0][:16].replace("T", " ")
        click.echo(f"machine {machine.name}")
        print_table(["Begun (UTC)", "Run", "Models", "Measured", "Rows"], lines, right=("Rows",))
