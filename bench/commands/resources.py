"""Measure each model's memory, start-up time and energy."""

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring, opener
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
@measuring(data=False)
def command(choices: Choices, models: tuple[str, ...]) -> int:
    """Measure the named models, or all, in fresh processes."""
    names, recorder = chosen_models(models), choices.recorder()
    with progress_bar() as progress:
        outcome = measure_resources(
            ModelStore(models_dir()),
            names,
            recorder,
            open_model=opener(choices.device),
            device=choices.device,
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=choices.as_json)
