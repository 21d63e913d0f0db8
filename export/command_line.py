"""The command line: ``python -m export NAME [NAME...]``."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cifar10.card import ModelCard
from cifar10.dataset import load_dataset
from cifar10.environment import models_dir
from cifar10.errors import Cifar10Error
from cifar10.store import TRAINING_FILE, ModelStore

_EXAMPLES = """\
examples:
  python -m export simple_cnn
  python -m export simple_cnn --data pictures.tar.xz          parity on a copy of your own
  python -m export --all                                      whatever has been trained
  python -m export simple_cnn_smoke --data synthetic          after a smoke training
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Export the models named; returns the exit status: 0, or 1 when one of them failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.names) == options.all:
        parser.error("name the trainings to export, or say --all")
    _set_environment()
    console, errors = Console(), Console(stderr=True)
    store = ModelStore(options.models_dir or models_dir())
    failed = False
    try:
        dataset = load_dataset(options.data)
        from export.run import export_model  # imports TensorFlow: seconds

        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        for name in options.names or trained_names(store):
            try:
                card = export_model(name, store, dataset)
            except Cifar10Error as error:
                failed = True
                _complain(errors, f"{name}: {error}")
            else:
                _summary(console, card, store.folder(name))
    except Cifar10Error as error:
        failed = True
        _complain(errors, str(error))
    return 1 if failed else 0


def trained_names(store: ModelStore) -> list[str]:
    """The names of all finished trainings in ``store``, sorted."""
    return sorted(path.parent.name for path in store.root.glob(f"*/{TRAINING_FILE}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn trained Keras models into ONNX, check that they answer the same, and "
        "write model.onnx and card.json into models/NAME.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a finished training's name")
    parser.add_argument("--all", action="store_true", help="all finished trainings in the store")
    parser.add_argument(
        "--models-dir", type=Path, help="the model store (default: CIFAR10_MODELS, else models/)"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the dataset whose validation images are compared, as `python -m training data` takes "
        "it (default: CIFAR10_DATA, else the official archive if it is cached)",
    )
    return parser


def _set_environment() -> None:
    """Before TensorFlow is imported: the comparison is on the CPU, and its log lines are noise."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _summary(console: Console, card: ModelCard, folder: Path) -> None:
    console.print(
        f"{card.name}: {card.size_bytes:,} bytes, {card.macs / 1e6:.2f} M MACs, opset {card.opset}",
        highlight=False,
    )
    console.print(
        f"parity: {card.parity.image_count:,} {card.parity.images}, probabilities within "
        f"{card.parity.max_absolute_difference:.2g}, top-1 agreement "
        f"{card.parity.top1_agreement:.2%}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"wrote {folder}: model.onnx, card.json", highlight=False, soft_wrap=True)


def _complain(errors: Console, message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
