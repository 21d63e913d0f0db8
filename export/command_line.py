"""The command line: ``python -m export NAME [NAME...]``; ``--int8`` or ``--fp16``: a variant."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from cifar10.card import ModelCard, RefusedVariant
from cifar10.dataset import Dataset, load_dataset
from cifar10.environment import models_dir
from cifar10.errors import Cifar10Error, ExportError
from cifar10.quiet import import_quietly
from cifar10.store import TRAINING_FILE, ModelStore

_EXAMPLES = """\
examples:
  python -m export simple_cnn
  python -m export simple_cnn --data pictures.tar.xz          parity on a copy of your own
  python -m export --all                                      whatever has been trained
  python -m export simple_cnn_smoke --data synthetic          after a smoke training
  python -m export simple_cnn --int8                          models/simple_cnn_int8, for CPUs
  python -m export --all --int8                               of every exported model

A variant that loses more than 1 point of accuracy on the validation images is refused: its folder
says why, in refused.json, and holds no model. That is an answer, not an error: the status is 0.
"""

_Made = ModelCard | RefusedVariant


def main(arguments: Sequence[str] | None = None) -> int:
    """Export the models named; returns the exit status: 0, or 1 when one of them failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.names) == options.all:
        parser.error("name what to export, or say --all")
    _set_environment()
    console, errors = Console(), Console(stderr=True)
    store = ModelStore(options.models_dir or models_dir())
    failed = False
    try:
        dataset = load_dataset(options.data)
        for name, make in _jobs(options, store, dataset):
            try:
                made = make()
            except Cifar10Error as error:
                failed = True
                _complain(errors, f"{name}: {error}")
            else:
                _summary(console, made, store)
    except Cifar10Error as error:
        failed = True
        _complain(errors, str(error))
    return 1 if failed else 0


def trained_names(store: ModelStore) -> list[str]:
    """The names of all finished trainings in ``store``, sorted."""
    return sorted(path.parent.name for path in store.root.glob(f"*/{TRAINING_FILE}"))


def _jobs(
    options: argparse.Namespace, store: ModelStore, dataset: Dataset
) -> Iterator[tuple[str, Callable[[], _Made]]]:
    """What was asked for, one at a time: its name, and what makes it."""
    if not (options.int8 or options.fp16):
        import_quietly("keras")  # and with it TensorFlow: seconds
        from export.run import export_model

        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        for name in options.names or trained_names(store):
            yield name, lambda name=name: export_model(name, store, dataset)  # type: ignore[misc]
        return
    from export.variants import VariantPrecision, make_variant, sources, variant_name

    names = options.names or sources(store)
    if not names:
        message = f"there is no model in {store.root}; make one: python -m export NAME"
        raise ExportError(message)
    chosen: list[VariantPrecision] = []
    if options.int8:
        chosen.append("int8")
    if options.fp16:
        chosen.append("fp16")
    for name in names:
        for precision in chosen:
            yield (
                variant_name(name, precision),
                lambda name=name, precision=precision: make_variant(  # type: ignore[misc]
                    name, precision, store, dataset
                ),
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn trained Keras models into ONNX, check that they answer the same, and "
        "write model.onnx and card.json into models/NAME. With --int8 or --fp16: make a variant of "
        "an exported model, measure it, and write it into models/NAME_int8 or models/NAME_fp16.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a finished training's name")
    parser.add_argument(
        "--all",
        action="store_true",
        help="all finished trainings in the store; for variants, all exported models",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="make the int8 variant, calibrated on training images: for CPUs",
    )
    parser.add_argument("--fp16", action="store_true", help="make the float16 variant: for GPUs")
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


def _summary(console: Console, made: _Made, store: ModelStore) -> None:
    card = made.card if isinstance(made, RefusedVariant) else made
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
    if card.variant is not None and card.variant.validation is not None:
        paired = card.variant.validation
        console.print(
            f"accuracy against {card.variant.source}: {0.0 - paired.difference * 100:+.2f} points "
            f"({-paired.high * 100:+.2f} to {-paired.low * 100:+.2f}), "
            f"McNemar p = {paired.p_value:.2g}",
            highlight=False,
            soft_wrap=True,
        )
    if card.early_exit is not None:
        console.print(
            f"early exit: a second look only where the first is less than "
            f"{card.early_exit.confidence:.0%} sure, {card.early_exit.second_looks:.1%} of "
            f"{card.early_exit.images:,} validation images; the class changes on none of them",
            highlight=False,
            soft_wrap=True,
        )
    folder = store.folder(card.name)
    if isinstance(made, RefusedVariant):
        console.print(f"refused: {made.reason}", style="yellow", highlight=False, soft_wrap=True)
        console.print(f"wrote {folder}: refused.json", highlight=False, soft_wrap=True)
    else:
        console.print(f"wrote {folder}: model.onnx, card.json", highlight=False, soft_wrap=True)


def _complain(errors: Console, message: str) -> None:
    errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
