"""Make photo, the model for photographs, from ImageNet weights and CIFAR-10 images.

--data names a folder of photographs: one folder for each of the ten classes and one called none.
They are not trained on: they measure the model, and the export chooses the thresholds of its
verdicts on them. Writes model.keras and training.json into models/photo.
"""

from pathlib import Path

import click

from cifar10.commands import options
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import output
from cifar10.data.photographs import DATASET, PHOTO, RESOLUTION, with_tiles
from cifar10.environment import own_models_dir
from cifar10.environment import weights_dir as default_weights_dir
from cifar10.quiet import import_quietly
from cifar10.store import ModelStore
from training.commands import options as training_options
from training.commands.options import prepare_keras, read_dataset
from training.commands.train import show_record
from training.networks.backbones import WeightsChoice
from training.progress import training_progress


@make_command(
    __name__,
    __doc__,
    """\
cifar10 photo --data ./photographs
cifar10 photo --data ./photographs --weights-dir ./weights
""",
)
@click.option(
    "--data", required=True, metavar="FOLDER", help="The photographs: a folder for each class."
)
@click.option("--tiles", metavar="PATH", help="CIFAR-10 (default: CIFAR10_DATA, or the download).")
@options.store
@training_options.weights_dir
def command(data: str, tiles: str | None, models_dir: Path | None, weights_dir: Path | None) -> int:
    """Make the model and show its accuracies."""
    console = output()
    photographs = read_dataset(console, data, RESOLUTION, DATASET, "crop")
    small = read_dataset(console, tiles)
    dataset = with_tiles(photographs, small)
    prepare_keras()
    import_quietly("keras")
    from training.photo import make_photo

    store = ModelStore(models_dir or own_models_dir())
    weights = WeightsChoice(weights_dir or default_weights_dir())
    with training_progress(console) as observer:
        record = make_photo(dataset, small, store, weights, observer=observer)
    show_record(console, record)
    for precision in ("", " --int8"):
        console.print(
            f"next: cifar10 export {PHOTO}{precision} --data {data}",
            highlight=False,
            soft_wrap=True,
        )
    return OK
