"""The command line: ``python -m training data | list | train | study``.

Keras is imported only by the commands that need it, after the environment has been told to keep
TensorFlow's own log lines out of the way.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cifar10.accuracy import Accuracy
from cifar10.card import TrainingRecord
from cifar10.dataset import Dataset, load_dataset
from cifar10.environment import models_dir, weights_dir
from cifar10.errors import Cifar10Error
from cifar10.quiet import import_quietly
from cifar10.sources import RawArrays
from cifar10.store import ModelStore
from training.networks.backbones import WeightsChoice
from training.progress import decoding_progress, training_progress
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.schema import Recipe, with_epochs
from training.smoke import cut_down

_EXAMPLES = """\
examples:
  python -m training list                                     the recipes
  python -m training data                                     fetch, check and cache the dataset
  python -m training data --data pictures.tar.xz              ... from a copy of your own
  python -m training train simple_cnn                         train, or go on where it was stopped
  python -m training train simple_cnn --seed 1 --restart      from the beginning, another seed
  python -m training study                                    everything, resumable
  python -m training study mobilenetv2_frozen mobilenetv2_finetuned --seeds 0,1,2
  python -m training train simple_cnn --smoke --data synthetic  walk the path in seconds
"""

_X86 = ("x86_64", "AMD64")
"""Where TensorFlow has oneDNN's convolutions, but uses them of its own accord only on processors
with AVX-512 VNNI. On an AMD EPYC with AVX2 ``compact`` trains in about half of its time with them,
and is still resumed bit for bit (docs/experiments.md)."""

_DATA_HELP = (
    "an image folder, a tar or zip of one, an .npz, cifar-10-batches-py, or 'synthetic' "
    "(default: CIFAR10_DATA, else the official archive, downloaded once)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 after an error in one line on stderr."""
    options = _parser().parse_args(arguments)
    # Before Keras is imported. What goes wrong comes as an exception; these lines are noise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in _X86:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    console = Console()
    try:
        if options.command == "list":
            _list(console)
        elif options.command == "data":
            _data(console, options.data)
        elif options.command == "study":
            return 0 if _study(console, options) else 1
        else:
            _train(console, options)
    except Cifar10Error as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        trains = options.command in ("train", "study")
        how = "goes on from the last whole epoch" if trains else "begins anew"
        Console(stderr=True).print(f"stopped; the same command {how}")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train CIFAR-10 classifiers with Keras.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="check and cache the dataset, and say what it is")
    data.add_argument("--data", metavar="PATH", help=_DATA_HELP)
    commands.add_parser("list", help="the recipes, with their source, accuracy and cost")
    train = commands.add_parser(
        "train",
        help="train a recipe: model.keras, history.csv and training.json in models/NAME",
        description="Train a recipe. Killed at any moment, the same command goes on from the last "
        "whole epoch; a finished model is left alone.",
    )
    train.add_argument("recipe", metavar="RECIPE", help="a name from `python -m training list`")
    train.add_argument("--data", metavar="PATH", help=_DATA_HELP)
    train.add_argument("--name", help="the model's name (default: the recipe's)")
    train.add_argument("--seed", type=_seed, default=0, help="of all randomness (default: 0)")
    train.add_argument(
        "--epochs", type=_positive, metavar="N", help="at most N in each phase (default: recipe's)"
    )
    _add_places(train)
    train.add_argument(
        "--smoke",
        action="store_true",
        help="the recipe's tiny form, on few images; its model is called RECIPE_smoke",
    )
    train.add_argument(
        "--restart", action="store_true", help="discard what was trained so far and begin anew"
    )
    study = commands.add_parser(
        "study",
        help="train many recipes, one after another, with a table at the end",
        description="Train recipes one after another; a failure is a row, and the exit status is "
        "then 1. Killed at any moment, the same command goes on; finished models are left alone.",
    )
    study.add_argument("recipes", nargs="*", metavar="RECIPE", help="which (default: all)")
    study.add_argument("--data", metavar="PATH", help=_DATA_HELP)
    study.add_argument(
        "--seeds",
        type=_seeds,
        default=(0,),
        metavar="N,N...",
        help="each recipe with each of them; models of other seeds than 0 are called RECIPE_seedN",
    )
    _add_places(study)
    study.add_argument("--smoke", action="store_true", help="the recipes' tiny forms")
    return parser


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--models-dir", type=Path, help="the model store (default: CIFAR10_MODELS, else models/)"
    )
    command.add_argument(
        "--weights-dir",
        type=Path,
        metavar="PATH",
        help="a folder of BACKBONE.weights.h5, or of Keras' own files "
        "(default: CIFAR10_WEIGHTS, else Keras' cache and its download)",
    )
    command.add_argument(
        "--random-weights",
        action="store_true",
        help="no pretrained weights: to measure a backbone's cost; trained on a few images only, "
        "and without an accuracy",
    )


def _weights(options: argparse.Namespace) -> WeightsChoice:
    return WeightsChoice(options.weights_dir or weights_dir(), random=options.random_weights)


def _positive(text: str) -> int:
    return _at_least(1, text)


def _seed(text: str) -> int:
    return _at_least(0, text)


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(_seed(part) for part in text.split(","))
    if len(set(seeds)) != len(seeds):
        message = f"expected each seed once, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return seeds


def _at_least(lowest: int, text: str) -> int:
    if not text.isdecimal() or int(text) < lowest:
        message = f"expected a whole number, at least {lowest}, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _list(console: Console) -> None:
    table = Table("recipe", "parameters", "test accuracy", "source", "cost")
    for recipe in RECIPES:
        low, high = recipe.expected_test_accuracy
        table.add_row(
            recipe.name,
            f"{recipe.expected_parameters.total:,}",
            f"{low:.0%}–{high:.0%}",
            recipe.source,
            recipe.cost,
        )
    console.print(table)


def _load(console: Console, source: str | None) -> Dataset:
    def download() -> RawArrays:
        import_quietly("keras")
        from training.official import download_official

        console.print("fetching the official CIFAR-10 (170 MB, once)")
        return download_official()

    with decoding_progress(console) as progress:
        return load_dataset(source, download=download, progress=progress)


def _data(console: Console, source: str | None) -> None:
    record = _load(console, source).record
    console.print(f"source       {record.source}", highlight=False)
    console.print(f"variant      {record.variant}", highlight=False)
    console.print(f"fingerprint  {record.fingerprint}", highlight=False, soft_wrap=True)
    console.print(
        f"images       {record.train_count:,} train, {record.validation_count:,} validation, "
        f"{record.test_count:,} test",
        highlight=False,
    )


def _study(console: Console, options: argparse.Namespace) -> bool:
    names = dict.fromkeys(options.recipes)  # each once, in the order given
    store = ModelStore(options.models_dir or models_dir())
    recipes = tuple(find_recipe(name) for name in names) or _teachable(console, store, options)
    dataset = _load(console, options.data)
    import_quietly("keras")
    from training.study_command import study

    return study(
        console,
        recipes,
        options.seeds,
        dataset,
        store.root,
        smoke=options.smoke,
        weights=_weights(options),
    )


def _teachable(
    console: Console, store: ModelStore, options: argparse.Namespace
) -> tuple[Recipe, ...]:
    """All recipes, but those whose teacher is not exported yet; says which."""
    found = []
    for recipe in RECIPES:
        teacher = recipe.distillation.teacher if recipe.distillation else None
        if options.smoke or teacher is None or teacher in store.names():
            found.append(recipe)
        else:
            console.print(
                f"{recipe.name} is left out: it learns from {teacher}, which is not exported yet. "
                f"Afterwards: python -m export {teacher} && python -m training train {recipe.name}",
                highlight=False,
                soft_wrap=True,
            )
    return tuple(found)


def _train(console: Console, options: argparse.Namespace) -> None:
    recipe: Recipe = find_recipe(options.recipe)
    store = ModelStore(options.models_dir or models_dir())
    recipe, dataset = cut_down(
        recipe, _load(console, options.data), smoke=options.smoke, weights=_weights(options)
    )
    # A smoke model must not take the place of a real one.
    name = options.name or f"{recipe.name}{'_smoke' if options.smoke else ''}"
    if options.epochs is not None:
        recipe = with_epochs(recipe, options.epochs)
    # Seconds, which the checks above must not cost.
    import_quietly("keras")
    from training.provenance import hardware
    from training.run import train

    console.print(
        f"{recipe.name} as {name}, seed {options.seed}, on {hardware()}",
        highlight=False,
        soft_wrap=True,
    )
    with training_progress(console) as observer:
        outcome = train(
            recipe,
            dataset,
            store,
            name=name,
            seed=options.seed,
            restart=options.restart,
            weights=_weights(options),
            observer=observer,
        )
    folder = store.folder(name)
    if outcome.already_there:
        console.print(
            f"{folder} is already trained; nothing to do (--restart begins anew)", soft_wrap=True
        )
    _summary(console, outcome.record)
    console.print(f"next: python -m export {name}", highlight=False)


def _summary(console: Console, record: TrainingRecord) -> None:
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
        console.print(f"{name:>10}  {_shown(accuracy)}", highlight=False)
    console.print(
        f"{'gap':>10}  {100 * record.accuracy.overfitting_gap:.2f} points, on "
        f"{record.dataset.variant}",
        highlight=False,
    )


def _shown(accuracy: Accuracy) -> str:
    return (
        f"{accuracy.accuracy:.2%}  (95 % interval {accuracy.low:.2%}–{accuracy.high:.2%}, "
        f"{accuracy.count:,} images)"
    )
