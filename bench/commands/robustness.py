"""Measure accuracy on damaged images and on typical user uploads."""

from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, chosen_models, new_recorder, opener
from bench.commands.output import conclude, progress_bar
from bench.measure.damage import measure_robustness, measure_sendings
from bench.measure.survey import RunOutcome, merged
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


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
@shared.data
@shared.device
@options.results
@shared.as_json
def command(
    models: tuple[str, ...],
    images: int,
    data: str | None,
    device: str,
    results: Path,
    as_json: bool,
) -> int:
    """Measure the named models, or all."""
    store = ModelStore(models_dir())
    names = chosen_models(store, models)
    with progress_bar() as progress:
        dataset, recorder = chosen_dataset(data, progress), new_recorder(results)
        outcomes: list[RunOutcome] = []
        for measure in (measure_robustness, measure_sendings):
            if not any(done.interrupted for done in outcomes):
                found = measure(
                    store,
                    names,
                    dataset,
                    recorder,
                    open_model=opener(device),
                    images=images,
                    progress=progress,
                )
                outcomes.append(found)
    return conclude(merged(outcomes), recorder, as_json=as_json)
