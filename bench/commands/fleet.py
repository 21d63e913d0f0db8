"""Restart, update, kill, freeze and cut off replicas behind a balancer, under load.

Needs Linux, root (for network namespaces) and HAProxy, and starts three replicas on hosts of their
own. Elsewhere the drill is skipped with a message.
"""

from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import model_of, new_recorder
from bench.commands.output import conclude, progress_bar
from bench.fleet.run import FleetPlan, run_fleet
from bench.fleet.scenarios import SCENARIOS
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench fleet                             all scenarios, about a quarter of an hour
cifar10 bench fleet kill freeze cut             three of them, a minute each
cifar10 bench fleet restart --requests 1000000 --rate 2000
""",
    options.EXIT_CODES,
)
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]...")
@click.option(
    "--model", type=shared.ModelName(), help="Model to serve (default: the server's own default)."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=400.0,
    show_default=True,
    metavar="PER_SECOND",
    help="Requests per second to the whole fleet.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Number of requests of the rolling scenarios.",
)
@options.quick
@options.results
@shared.as_json
def command(
    scenarios: tuple[str, ...],
    model: str | None,
    rate: float,
    requests: int,
    quick: bool,
    results: Path,
    as_json: bool,
) -> int:
    """Run the named scenarios, or all."""
    plan = FleetPlan.quick(rate) if quick else FleetPlan(rate, requests)
    recorder = new_recorder(results, quick=quick)
    served = model_of(ModelStore(models_dir()), model, "cpu")
    with progress_bar() as progress:
        outcome = run_fleet(models_dir(), served, scenarios, recorder, plan, progress)
    return conclude(outcome, recorder, as_json=as_json)
