"""Measure each model's memory, start-up time and energy."""

from pathlib import Path

from bench.commands import options
from bench.commands.choices import chosen_models, new_recorder, opener
from bench.commands.output import conclude, progress_bar
from bench.measure.resources import measure_resources
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench resources
cifar10 bench resources simple_cnn --device cuda
""",
    options.EXIT_CODES,
)
@shared.models
@shared.device
@options.results
@shared.as_json
def command(models: tuple[str, ...], device: str, results: Path, as_json: bool) -> int:
    """Measure the named models, or all, in fresh processes."""
    store = ModelStore(models_dir())
    names = chosen_models(store, models)
    recorder = new_recorder(results)
    with progress_bar() as progress:
        outcome = measure_resources(
            store,
            names,
            recorder,
            open_model=opener(device),
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
