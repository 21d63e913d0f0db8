"""Measure requests with many images each, against inference in process."""

from dataclasses import replace

import click

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring
from bench.commands.output import conclude
from bench.serving.bulk import QUICK_BULK_PLAN, BulkPlan, measure_bulk, measured_in
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench bulk                              256 images a request, every model in the store
cifar10 bench bulk --resume                     continue the newest session
cifar10 bench bulk --quick                      half a second each: a functional check
cifar10 bench bulk simple_cnn --images 64 --rounds 3
""",
    options.EXIT_CODES,
)
@shared.models
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Number of images in a request.",
)
@options.rounds("Interleaved rounds (default: 5, quick: 2).")
@options.positive_seconds("Duration of each measurement in each round (default: 3, quick: 0.5).")
@measuring(device=False, quick=True, resume=True)
def command(
    choices: Choices,
    models: tuple[str, ...],
    images: int,
    rounds: int | None,
    seconds: float | None,
) -> int:
    """Measure the named models, or all."""
    store, names = ModelStore(models_dir()), chosen_models(models)
    plan = QUICK_BULK_PLAN if choices.quick else BulkPlan()
    plan = replace(
        plan, images=images, rounds=rounds or plan.rounds, seconds=seconds or plan.seconds
    )
    session = choices.session("bulk")
    done = measured_in(session.rows)
    names = [name for name in names if (name, store.card(name).sha256) not in done]
    with choices.setup(names, device="cpu", session_id=session.run_id) as setup:
        outcome = measure_bulk(setup, names, plan)
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
