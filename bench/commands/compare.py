"""Compare two sets of rows and report significant changes."""

from dataclasses import asdict
from pathlib import Path

import click

from bench.commands import options
from bench.commands.listing import print_comparison, side_of
from bench.compare.findings import Tolerance
from bench.compare.findings import compare as compare_sides
from cifar10.commands import options as shared
from cifar10.commands.command import NOTHING_COMPARED, OK, REGRESSION
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json


@make_command(
    __name__,
    __doc__,
    """\
cifar10 compare baseline/ results/              two folders; exit code 4 on a regression
cifar10 compare 3f2a91c0 a77e01d2               two runs of this folder (see: cifar10 ls --runs)
cifar10 compare 3f2a,77b0,c041 a77e,19fd,e220 --tolerance 5
                                                three runs a side, interleaved: the most reliable

To check it on this machine, measure an unchanged service a few times, then a slower one.
  for i in 1 2 3; do cifar10 bench load --results a; cifar10 bench load --results b; done
  cifar10 compare a b                           the same: exit code 0
""",
    """\
Exit codes:
  0    no regression
  1    an error, in one line
  4    a regression beyond the tolerance
  5    nothing could be compared
""",
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="PERCENT",
    help="Allowed change in speed.",
)
@click.option(
    "--accuracy-tolerance",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    metavar="POINTS",
    help="Allowed loss of accuracy.",
)
@options.results
@shared.as_json
def command(
    before: str,
    after: str,
    tolerance: float,
    accuracy_tolerance: float,
    results: Path,
    as_json: bool,
) -> int:
    """Compare A, a folder of results or run ids, with B."""
    comparison = compare_sides(
        side_of(before, results),
        side_of(after, results),
        Tolerance(tolerance / 100, accuracy_tolerance),
    )
    nothing = not comparison.findings and not comparison.failures
    if as_json:
        record = {**asdict(comparison), "regression": comparison.is_regression}
        print_json({**record, "nothing_compared": nothing})
    else:
        print_comparison(comparison)
    if nothing:
        return NOTHING_COMPARED
    return REGRESSION if comparison.is_regression else OK
