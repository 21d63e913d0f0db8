"""Export trained models to ONNX, check that both agree, and write their cards.

Writes model.onnx, card.json and README.md into models/NAME. With --int8 or --fp16: makes a variant
of an exported model, measures it, and writes it into models/NAME_int8 or models/NAME_fp16. A
variant that loses more than 1 point of accuracy on the validation images is refused: its folder
then holds refused.json with the reason, and no model. A refusal is a result, not an error: the exit
code is 0. If MLFLOW_TRACKING_URI is set, card and model are added to the training's run in MLflow.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cifar10.card import ModelCard, RefusedVariant, TrainingRecord
from cifar10.commands import options
from cifar10.commands.command import FAILED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json, say_error
from cifar10.contract import ImageShape
from cifar10.data.photographs import PHOTO, with_tiles
from cifar10.dataset import Dataset, dataset_of, load_dataset
from cifar10.environment import own_models_dir
from cifar10.errors import Cifar10Error, ExportError
from cifar10.image_layout import Fit
from cifar10.labels import DATASET_NAME
from cifar10.quiet import import_quietly
from cifar10.store import TRAINING_FILE, ModelStore
from cifar10.tracking import check_client
from export.tracked import record_export

_Made = ModelCard | RefusedVariant


@make_command(
    __name__,
    __doc__,
    """\
cifar10 export simple_cnn
cifar10 export simple_cnn --data pictures.tar.xz     parity on a copy of your own
cifar10 export --all                                 whatever has been trained
cifar10 export simple_cnn_smoke --data synthetic     after a smoke training
cifar10 export simple_cnn --int8                     models/simple_cnn_int8, for CPUs
cifar10 export --all --int8                          of every exported model
""",
)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All finished trainings in the store; for variants, all exported models.",
)
@click.option(
    "--int8", is_flag=True, help="Make the int8 variant, calibrated on training images: for CPUs."
)
@click.option("--fp16", is_flag=True, help="Make the float16 variant: for GPUs.")
@click.option(
    "--thresholds",
    is_flag=True,
    help="Only choose the verdict thresholds again, for exported models.",
)
@options.store
@options.data
@options.as_json
def command(
    names: tuple[str, ...],
    everything: bool,
    int8: bool,
    fp16: bool,
    thresholds: bool,
    models_dir: Path | None,
    data: str | None,
    as_json: bool,
) -> int:
    """Export the models named."""
    if bool(names) == everything:
        message = "name the models to export, or say --all"
        raise click.UsageError(message)
    if thresholds and (int8 or fp16):
        message = "--thresholds takes the models' own names, without --int8 or --fp16"
        raise click.UsageError(message)
    _require("onnx", "onnxruntime") if int8 or fp16 or thresholds else _require(
        "keras", "tensorflow", "tf2onnx"
    )
    check_client()
    _set_environment()
    console = errors() if as_json else output()
    store = ModelStore(models_dir or own_models_dir())
    failed: dict[str, str] = {}
    made: list[_Made] = []
    datasets = _DataSets(data)
    jobs = (
        _threshold_jobs(names, store, datasets)
        if thresholds
        else _jobs(names, store, datasets, int8=int8, fp16=fp16)
    )
    for name, make in jobs:
        try:
            one = make()
        except Cifar10Error as error:
            failed[name] = str(error)
            say_error(f"{name}: {error}")
        else:
            made.append(one)
            _summary(console, one, store)
            if isinstance(one, ModelCard):
                record_export(one, store)
    if as_json:
        print_json({"exported": [_record(one) for one in made], "failed": failed})
    return FAILED if failed else OK


def _require(*modules: str) -> None:
    """Fail if the extra is not installed, before any advice about data that export would need.

    Raises:
        ModuleNotFoundError: a module is missing; the command line says how to install it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            message = f"No module named {module!r}"
            raise ModuleNotFoundError(message, name=module)


def _record(made: _Made) -> dict[str, Any]:
    if isinstance(made, RefusedVariant):
        return {"refused": made.reason, "card": asdict(made.card)}
    return {"refused": None, "card": asdict(made)}


def trained_names(store: ModelStore) -> list[str]:
    """Return the names of all finished trainings in ``store``, sorted."""
    return sorted(path.parent.name for path in store.root.glob(f"*/{TRAINING_FILE}"))


def _jobs(
    names: Sequence[str], store: ModelStore, datasets: "_DataSets", *, int8: bool, fp16: bool
) -> Iterator[tuple[str, Callable[[], _Made]]]:
    """Yield each requested export: its name, and the function that makes it."""
    if not (int8 or fp16):
        import_quietly("keras")  # imports TensorFlow, which takes seconds
        from export.run import export_model, training_record

        def export(name: str) -> ModelCard:
            record = training_record(name, store)
            return export_model(name, store, datasets.of(record))

        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        for name in names or trained_names(store):
            yield name, partial(export, name)
        return
    from export.variants import VariantPrecision, make_variant, sources, variant_name

    names = names or sources(store)
    if not names:
        message = f"there is no model in {store.root}; make one: cifar10 export NAME"
        raise ExportError(message)
    chosen: list[VariantPrecision] = []
    if int8:
        chosen.append("int8")
    if fp16:
        chosen.append("fp16")

    def make(name: str, precision: VariantPrecision) -> _Made:
        card = store.card(name)
        return make_variant(name, precision, store, datasets.of(card))

    for name in names:
        for precision in chosen:
            yield variant_name(name, precision), partial(make, name, precision)


def _threshold_jobs(
    names: Sequence[str], store: ModelStore, datasets: "_DataSets"
) -> Iterator[tuple[str, Callable[[], _Made]]]:
    from export.calibrate import choose_verdicts

    def choose(name: str) -> ModelCard:
        return choose_verdicts(name, store, datasets.of(store.card(name)))

    for name in names or store.names():
        yield name, partial(choose, name)


class _DataSets:
    """The data sets that models were trained on, each read once."""

    def __init__(self, source: str | None) -> None:
        self._source = source
        self._read: dict[tuple[str, ImageShape, Fit], Dataset] = {}

    def of(self, model: TrainingRecord | ModelCard) -> Dataset:
        """Return the data set of a model; the copy of CIFAR-10 is the one that is named."""
        record, shape, fit = model.dataset, model.image_shape, model.fit
        own = record.name != DATASET_NAME
        key = (record.fingerprint if own else DATASET_NAME, shape, fit)
        if key not in self._read:
            found = dataset_of(record, shape, self._source, fit=fit)
            is_photo = model.recipe == PHOTO
            self._read[key] = with_tiles(found, load_dataset(None)) if is_photo else found
        return self._read[key]


def _set_environment() -> None:
    """Set the environment before TensorFlow is imported.

    The comparison runs on the CPU, and TensorFlow's log lines are not needed.
    """
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
            f"accuracy against {card.variant.source}: {_points(-paired.difference)} points "
            f"({_points(-paired.high)} to {_points(-paired.low)}), "
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
        written = f"wrote {folder}: model.onnx, card.json, README.md"
        console.print(written, highlight=False, soft_wrap=True)


def _points(difference: float) -> str:
    """Return a difference of accuracies in percentage points, zero without a minus."""
    return f"{round(difference * 100, 2) + 0.0:+.2f}"
