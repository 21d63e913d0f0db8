"""Find the workers, threads and batch size with the highest throughput."""

from dataclasses import replace
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, model_of, new_recorder
from bench.commands.output import conclude, progress_bar
from bench.load.bodies import encode_jpeg
from bench.serving.target import Target
from bench.serving.tuning import (
    QUICK_SETTINGS_PLAN,
    SENT_IMAGES,
    SettingsPlan,
    choices,
    measure_settings,
)
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
@options.quick
@shared.data
@shared.device
@options.results
@shared.as_json
def command(
    model: str | None,
    rounds: int | None,
    quick: bool,
    data: str | None,
    device: str,
    results: Path,
    as_json: bool,
) -> int:
    """Tune the service of one model (default: the server's own default)."""
    store = ModelStore(models_dir())
    where: Device = "cuda" if device == "cuda" else "cpu"
    name = model_of(store, model, where)
    plan = QUICK_SETTINGS_PLAN if quick else SettingsPlan()
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        recorder = new_recorder(results, quick=quick)
        images = dataset.test.images[:SENT_IMAGES]
        outcome = measure_settings(
            Target(store.root, device=where),
            name,
            store.card(name).sha256,
            [encode_jpeg(image) for image in images],
            recorder,
            tried=choices(where),
            plan=replace(plan, rounds=rounds or plan.rounds),
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
