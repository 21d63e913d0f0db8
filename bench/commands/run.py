"""Measure cost, accuracy, latency and throughput in process."""

import click

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring
from bench.commands.output import conclude
from bench.measure.in_process import measure_models
from bench.measure.latency import QUICK_PLAN, LatencyPlan
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench run                               every model in the store
cifar10 bench run simple_cnn compact --quick    a first look, in seconds
cifar10 bench run --data cifar10-images.tar.xz --device cuda
""",
    options.EXIT_CODES,
)
@shared.models
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Intra-op threads.",
)
@measuring(quick=True)
def command(choices: Choices, models: tuple[str, ...], threads: int) -> int:
    """Measure the named models, or all."""
    names = chosen_models(models)
    plan = QUICK_PLAN if choices.quick else LatencyPlan(threads=threads)
    with choices.setup(names, threads=threads) as setup:
        outcome = measure_models(setup, names, plan, quick=choices.quick)
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
