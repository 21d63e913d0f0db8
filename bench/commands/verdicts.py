"""Measure how often each verdict is given and right, and the worth of confidence.

Without --data: on the test images of each model's own data set. With a folder of photographs, one
folder for each class and one called none for pictures of none of them: on all of them, decoded as
the service does it; a model that was validated on them gets a second row, of its test part. The
model auto stands for the pair that the service would ask.
"""

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring
from bench.commands.output import conclude, progress_bar
from bench.measure.verdicts import measure_photographs, measure_test_verdicts, photographs_folder
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.predictor import likely_device
from cifar10.released import AUTO, auto_rule
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench verdicts                          every model and auto, on their test images
cifar10 bench verdicts auto photo_int8 --data ./photographs
""",
    options.EXIT_CODES,
)
@shared.models
@measuring()
def command(choices: Choices, models: tuple[str, ...]) -> int:
    """Measure the named models, or all."""
    store = ModelStore(models_dir())
    rule = auto_rule(store.names(), likely_device(choices.device))
    if AUTO in models and rule is None:
        message = f"{store.root} has no pair of models for auto: name the models in it"
        raise BenchError(message)
    named = [name for name in models if name != AUTO]
    names = chosen_models(named) if named or not models else []
    asks_auto = rule is not None and (AUTO in models or not models)
    folder = photographs_folder(choices.data)
    if folder is not None:
        recorder = choices.recorder()
        with progress_bar() as progress:
            outcome = measure_photographs(
                store, [*names, *([AUTO] if asks_auto else [])], folder, recorder,
                rule=rule, device=choices.device, progress=progress,
            )  # fmt: skip
        return conclude(outcome, recorder, as_json=choices.as_json)
    if asks_auto and rule is not None:
        names = list(dict.fromkeys([*names, rule.small]))
    with choices.setup(names) as setup:
        outcome = measure_test_verdicts(setup, names, rule if asks_auto else None)
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
