"""Measure cost, accuracy, latency and throughput in process."""

from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, chosen_models, new_recorder, opener
from bench.commands.output import conclude, progress_bar
from bench.measure.in_process import measure_models
from bench.measure.latency import QUICK_PLAN, LatencyPlan
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


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
@shared.data
@shared.device
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Intra-op threads.",
)
@options.quick
@options.results
@shared.as_json
def command(
    models: tuple[str, ...],
    data: str | None,
    device: str,
    threads: int,
    quick: bool,
    results: Path,
    as_json: bool,
) -> int:
    """Measure the named models, or all."""
    store = ModelStore(models_dir())
    names = chosen_models(store, models)
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        recorder = new_recorder(results, quick=quick)
        outcome = measure_models(
            store,
            names,
            dataset,
            recorder,
            open_model=opener(device, threads),
            plan=QUICK_PLAN if quick else LatencyPlan(threads=threads),
            quick=quick,
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
