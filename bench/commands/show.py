"""Show the rows of one model or of one run."""

from pathlib import Path

import click

from bench.commands import options
from bench.commands.listing import found_in, print_rows, row_record, rows_about
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json


@make_command(
    __name__,
    __doc__,
    """\
cifar10 show simple_cnn                         all rows of a model
cifar10 show 3f2a91c0 --json                    all rows of a run, with every sample
""",
)
@click.argument("name", metavar="MODEL|RUN", type=shared.ModelName())
@options.results
@shared.as_json
def command(name: str, results: Path, as_json: bool) -> int:
    """Print the rows of a model, or of the run whose id begins so."""
    rows = [row for machine in found_in(results) for row in machine.rows]
    about = rows_about(rows, name, results)
    if as_json:
        print_json([row_record(row, whole=True) for row in about])
    else:
        print_rows(about)
    return OK
