"""Measure requests with many images each, against inference in process."""

from dataclasses import replace
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, chosen_models, new_recorder, opener
from bench.commands.output import conclude, progress_bar, session_for
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
@options.quick
@options.resume
@shared.data
@options.results
@shared.as_json
def command(
    models: tuple[str, ...],
    images: int,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    resume: bool,
    data: str | None,
    results: Path,
    as_json: bool,
) -> int:
    """Measure the named models, or all."""
    store = ModelStore(models_dir())
    names = chosen_models(store, models)
    plan = QUICK_BULK_PLAN if quick else BulkPlan()
    plan = replace(
        plan, images=images, rounds=rounds or plan.rounds, seconds=seconds or plan.seconds
    )
    session = session_for("bulk", results, quick=quick, resume=resume)
    done = measured_in(session.rows)
    names = [name for name in names if (name, store.card(name).sha256) not in done]
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        recorder = new_recorder(results, quick=quick, session_id=session.run_id)
        outcome = measure_bulk(
            store,
            names,
            dataset,
            recorder,
            open_model=opener("cpu"),
            plan=plan,
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
