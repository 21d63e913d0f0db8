"""Measure accuracy on damaged images and on typical user uploads."""

import click

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring
from bench.commands.output import conclude
from bench.measure.damage import measure_robustness, measure_sendings
from bench.measure.survey import merged
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench robustness                        every model, 2,000 test images, 25 copies each
cifar10 bench robustness simple_cnn --images 10000
""",
    options.EXIT_CODES,
)
@shared.models
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=2_000,
    show_default=True,
    help="Number of test images, a seeded sample of the 10,000.",
)
@measuring()
def command(choices: Choices, models: tuple[str, ...], images: int) -> int:
    """Measure the named models, or all."""
    names = chosen_models(models)
    with choices.setup(names) as setup:
        outcome = measure_robustness(setup, names, images=images)
        if not outcome.interrupted:
            outcome = merged([outcome, measure_sendings(setup, names, images=images)])
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
