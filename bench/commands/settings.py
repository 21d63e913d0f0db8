"""Find the workers, threads and batch size with the highest throughput."""

from dataclasses import replace

import click

from bench.commands import options
from bench.commands.choices import Choices, measuring, model_of
from bench.commands.output import conclude
from bench.load.bodies import encode_jpeg
from bench.serving.target import Target
from bench.serving.tuning import (
    QUICK_SETTINGS_PLAN,
    SENT_IMAGES,
    SettingsPlan,
    measure_settings,
)
from bench.serving.tuning import choices as tried
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.predictor import Device
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench settings                          the default model on one core and on all
cifar10 bench settings simple_cnn --rounds 5
cifar10 bench settings --device cuda
""",
    options.EXIT_CODES,
)
@click.argument("model", required=False, type=shared.ModelName())
@options.rounds("Interleaved rounds (default: 3, quick: 1).")
@measuring(quick=True)
def command(choices: Choices, model: str | None, rounds: int | None) -> int:
    """Tune the service of one model (default: the server's own default)."""
    where: Device = "cuda" if choices.device == "cuda" else "cpu"
    plan = QUICK_SETTINGS_PLAN if choices.quick else SettingsPlan()
    store = ModelStore(models_dir())
    name = model_of(store, model, where)
    with choices.setup([name], device=where) as setup:
        images = setup.images(SENT_IMAGES)
        outcome = measure_settings(
            Target(store.root, device=where),
            name,
            store.card(name).sha256,
            [encode_jpeg(image) for image in images],
            setup.recorder,
            tried=tried(where),
            plan=replace(plan, rounds=rounds or plan.rounds),
            progress=setup.progress,
        )
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
