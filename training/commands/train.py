"""Train a recipe.

Writes model.keras, history.csv and training.json into models/NAME.
After an interruption, the same command continues from the last whole epoch. A finished model is not
trained again. If MLFLOW_TRACKING_URI is set, the training is recorded in MLflow.
"""

import importlib.util
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from cifar10.accuracy import Accuracy
from cifar10.card import TrainingRecord
from cifar10.commands import options
from cifar10.commands.command import INTERRUPTED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json
from cifar10.dataset import Dataset
from cifar10.environment import own_models_dir
from cifar10.environment import weights_dir as default_weights_dir
from cifar10.labels import DATASET_NAME
from cifar10.quiet import import_quietly
from cifar10.store import ModelStore
from cifar10.tracking import check_client
from training.commands import options as training_options
from training.commands.options import RecipeName, prepare_keras, read_dataset
from training.networks.backbones import WeightsChoice
from training.progress import training_progress
from training.recipes.catalogue import find_recipe
from training.recipes.own_images import check_size, for_dataset, model_name, own_size
from training.recipes.schema import Recipe, with_epochs
from training.smoke import cut_down


@make_command(
    __name__,
    __doc__,
    """\
cifar10 train simple_cnn                          train, or continue where it was stopped
cifar10 train simple_cnn --seed 1 --restart       from the beginning, another seed
cifar10 train simple_cnn --smoke --data synthetic  a functional check in seconds
cifar10 train mobilenetv2_head --data ./flowers    your own images: a folder for each class
cifar10 train compact --tensorboard ./curves       needs the extra `tensorboard`
cifar10 train compact --devices 4                  four GPUs share each step, on JAX
""",
)
@click.argument("recipe", type=RecipeName())
@options.data
@options.data_name
@click.option(
    "--size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Pixels per side of your own images, as the recipe takes them (default: the recipe's).",
)
@click.option(
    "--name",
    help="Name of the model (default: the recipe's; for your own images DATA_RECIPE).",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of all randomness.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of epochs in each phase (default: the recipe's).",
)
@options.store
@training_options.weights_dir
@training_options.random_weights
@click.option(
    "--smoke",
    is_flag=True,
    help="Train the recipe's smoke form, on few images, as RECIPE_smoke.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Precision of layers in training; bf16 is for a GPU. Weights stay float32.",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    help="GPUs that share each step, on JAX (default: the most that divide the batch).",
)
@click.option(
    "--tensorboard",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the curves of loss and accuracy to DIR, for `tensorboard --logdir DIR`.",
)
@click.option("--restart", is_flag=True, help="Discard what was trained so far and begin again.")
@options.as_json
def command(
    recipe: str,
    data: str | None,
    data_name: str | None,
    size: int | None,
    name: str | None,
    seed: int,
    epochs: int | None,
    models_dir: Path | None,
    weights_dir: Path | None,
    random_weights: bool,
    smoke: bool,
    precision: Literal["fp32", "bf16"],
    devices: int | None,
    tensorboard: Path | None,
    restart: bool,
    as_json: bool,
) -> int:
    """Train one recipe."""
    found = find_recipe(recipe)
    check_client()
    if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        message = "No module named 'tensorboard'"
        raise ModuleNotFoundError(message, name="tensorboard")
    store = ModelStore(models_dir or own_models_dir())
    console = errors() if as_json else output()
    weights = WeightsChoice(weights_dir or default_weights_dir(), random=random_weights)
    try:
        whole = read_dataset(console, data, own_size(found, size), data_name)
        check_size(whole, size)
        chosen, dataset = cut_down(for_dataset(found, whole), whole, smoke=smoke, weights=weights)
        # A smoke model must not take the place of a real one.
        model = name or f"{model_name(found, whole)}{'_smoke' if smoke else ''}"
        if epochs is not None:
            chosen = with_epochs(chosen, epochs)
        # The import takes seconds, so it comes after the checks above.
        prepare_keras()
        import_quietly("keras")
        from training.curves import epochs_for, finish, mlflow_run, tensorboard_curves
        from training.device_epochs import devices_for
        from training.provenance import hardware
        from training.run import train

        devices = devices_for(chosen.batch_size, devices)
        sharing = f"; each step on {devices} devices" if devices > 1 else ""
        console.print(
            f"{chosen.name} as {model}, seed {seed}, on {hardware()}{sharing}",
            highlight=False,
            soft_wrap=True,
        )
        if dataset.record.name != DATASET_NAME:
            _describe_own(console, dataset, found)
        with ExitStack() as stack:
            told = []
            if tensorboard is not None:
                told.append(stack.enter_context(tensorboard_curves(tensorboard)))
            run = mlflow_run(model, chosen, dataset.record, seed, precision)
            if run is not None:
                told.append(epochs_for(stack.enter_context(run)))
            observer = stack.enter_context(training_progress(console, told))
            outcome = train(
                chosen,
                dataset,
                store,
                name=model,
                seed=seed,
                restart=restart,
                weights=weights,
                precision=precision,
                devices=devices,
                observer=observer,
            )
            if run is not None and not outcome.already_there:
                finish(run, outcome.record, store.folder(model))
    except KeyboardInterrupt:
        errors().print("stopped; the same command continues from the last whole epoch")
        return INTERRUPTED
    folder = store.folder(model)
    if outcome.already_there:
        console.print(
            f"{folder} is already trained; nothing to do (--restart begins again)", soft_wrap=True
        )
    if as_json:
        print_json(asdict(outcome.record))
        return OK
    show_record(console, outcome.record)
    console.print(f"next: cifar10 export {model}", highlight=False)
    return OK


def _describe_own(console: Console, dataset: Dataset, recipe: Recipe) -> None:
    record = dataset.record
    height, width, _ = dataset.image_shape
    console.print(
        f"{record.name}: {len(dataset.labels):,} classes, {record.train_count:,} train, "
        f"{record.validation_count:,} validation, {record.test_count:,} test images at "
        f"{width} × {height}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if recipe.distillation is not None:
        console.print(
            f"  without a teacher: {recipe.distillation.teacher} teaches {recipe.name} CIFAR-10's "
            "classes only",
            highlight=False,
            soft_wrap=True,
        )


def show_record(console: Console, record: TrainingRecord) -> None:
    """Print parameters, cost and accuracies of a finished training."""
    cost = record.training
    console.print(
        f"{record.name}: {record.parameters.total:,} parameters, {cost.epochs} epochs in "
        f"{cost.seconds:.0f} s, weights of epoch {cost.best_epoch} kept",
        highlight=False,
        soft_wrap=True,
    )
    if record.accuracy is None:
        console.print("  accuracy  none: random weights, for measuring cost only")
        return
    for name, accuracy in (
        ("train", record.accuracy.train),
        ("validation", record.accuracy.validation),
        ("test", record.accuracy.test),
    ):
        if accuracy is not None:
            console.print(f"{name:>10}  {_shown(accuracy)}", highlight=False)
    gap = record.accuracy.overfitting_gap
    if gap is not None:
        console.print(
            f"{'gap':>10}  {100 * gap:.2f} points, on {record.dataset.variant}", highlight=False
        )


def _shown(accuracy: Accuracy) -> str:
    return (
        f"{accuracy.accuracy:.2%}  (95 % interval {accuracy.low:.2%}–{accuracy.high:.2%}, "
        f"{accuracy.count:,} images)"
    )
