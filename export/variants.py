"""Make a model's int8 or float16 variant, or a record of why it was refused.

A variant is made from ``model.onnx`` and its card, so the Keras file is not needed. Validation
images decide whether it is kept; only then is it evaluated on training and test images, for its
card.
"""

import hashlib
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cifar10.accuracy import measure_accuracy
from cifar10.card import (
    SCHEMA_VERSION,
    AccuracyRecord,
    EarlyExit,
    Golden,
    ModelCard,
    Parity,
    RefusedVariant,
    VariantRecord,
    read_card,
    read_refused,
)
from cifar10.dataset import Dataset, Split
from cifar10.errors import ExportError
from cifar10.golden import golden_images
from cifar10.paired import PairedTest, mcnemar
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.store import CARD_FILE, ONNX_FILE, README_FILE, REFUSED_FILE, ModelStore, write_atomic
from export import float16 as half
from export import quantize
from export.batches import predict
from export.calibrate import calibrate, check_dataset, describe_confidence
from export.culprit import Culprit
from export.early_exit import choose_exit, exit_early, looks_twice
from export.macs import count_macs
from export.readme import describe

logger = logging.getLogger(__name__)

VariantPrecision = Literal["int8", "fp16"]

_CPU: Final = PredictorOptions(device="cpu")


@dataclass(frozen=True)
class VariantLimits:
    """Largest loss with which a variant is kept. It does not apply to models with random
    weights."""

    accuracy_loss: float = 0.01
    """Largest accuracy of the source minus that of the variant, 0–1, on all validation images."""
    top1_agreement: float = 0.9
    """Lowest share of validation images to which variant and source give the same class. For a
    source that is right on 70 %, 7 % changed without harm (MobileNetV2 at 96 px with frozen
    features, which lost half a point)."""


@dataclass(frozen=True)
class _Kind:
    """Settings of one precision."""

    convert: Callable[[onnx.ModelProto, NDArray[np.uint8]], onnx.ModelProto]
    """Function of a float graph and training images that returns the variant."""
    method: str
    calibration_images: int
    golden_tolerance: float
    """Largest accepted difference of golden probabilities. At int8, several times the 0.005 (on
    2,000 images) by which a graph differs when ONNX Runtime does not fuse its nodes, which
    approximates another processor's kernels. At float16, several times the rounding error."""
    find_culprit: (
        Callable[[onnx.ModelProto, onnx.ModelProto, NDArray[np.uint8]], Culprit | None] | None
    ) = None
    """Function of the float graph, the variant and training images."""
    changes_confidence: bool = False
    """Whether answers change so much that the temperature is fitted again."""
    exits_early: bool = False
    """Whether a graph with two views computes the second only for unsure images."""


_KINDS: Final[dict[VariantPrecision, _Kind]] = {
    "int8": _Kind(
        quantize.quantize_int8,
        quantize.METHOD,
        quantize.CALIBRATION_IMAGES,
        golden_tolerance=0.02,
        find_culprit=quantize.find_int8_culprit,
        changes_confidence=True,
        exits_early=True,
    ),
    "fp16": _Kind(lambda model, _: half.convert_fp16(model), half.METHOD, 0, golden_tolerance=0.01),
}


def variant_name(source: str, precision: VariantPrecision) -> str:
    """Return the variant's name and folder: ``simple_cnn_int8``."""
    return f"{source}_{precision}"


def sources(store: ModelStore) -> list[str]:
    """Return the models of which variants can be made: all that are not variants."""
    return [name for name in store.names() if store.card(name).variant is None]


def make_variant(
    name: str,
    precision: VariantPrecision,
    store: ModelStore,
    dataset: Dataset,
    limits: VariantLimits = VariantLimits(),
) -> ModelCard | RefusedVariant:
    """Make ``NAME_int8`` or ``NAME_fp16`` of ``name``.

    Write ``model.onnx`` and ``card.json`` into the variant's folder. If the variant loses more than
    ``limits`` allow, write ``refused.json`` alone and remove an earlier variant.

    Args:
        name: a model in ``store``, at fp32.
        precision: precision of the variant.
        store: the model store.
        dataset: the model's data set: training images calibrate, validation images decide.
        limits: maximum loss.

    Raises:
        StoreError: there is no such model, or its file is not the one its card describes.
        ExportError: it is a variant itself, was trained on other images, or cannot be converted.
            The store is unchanged.
    """
    source = store.load(name)
    _check_source(source.card, dataset)
    kind = _KINDS[precision]
    logger.info("%s: making its %s variant", name, precision)
    whole = onnx.load_from_string(source.onnx)
    graph = converted = kind.convert(whole, dataset.train.images)
    macs = count_macs(graph)
    validation = dataset.validation
    early = None
    random_weights = source.card.weights is not None and source.card.weights.random
    images = f"validation images of {dataset.record.variant}"
    calibration = source.card.calibration
    if kind.changes_confidence and not random_weights:
        graph, calibration = calibrate(graph, validation, images, source.card.labels)
        if source.card.calibration is not None:
            calibration = calibration.on_top_of(source.card.calibration)
    if kind.exits_early and looks_twice(graph):
        graph, early = _with_early_exit(graph, validation.images)
    del graph.graph.value_info[:]  # inferred shapes, which ONNX Runtime infers itself
    onnx_bytes: bytes = graph.SerializeToString()
    predictor = Predictor(onnx_bytes, _CPU)
    expected = predict(Predictor(source.onnx, _CPU), validation.images)
    found = predict(predictor, validation.images)
    if early is not None and calibration is not None:  # the first view alone has other confidences
        calibration = describe_confidence(
            found, validation.labels, source.card.labels, images, calibration.temperature
        )
    paired = mcnemar(
        expected.argmax(axis=1) == validation.labels, found.argmax(axis=1) == validation.labels
    )
    description = f"{images}, against {name}"
    parity = Parity(
        description,
        len(found),
        float(np.abs(found - expected).max()),
        float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
    )
    card = _card(source.card, precision, kind, graph, onnx_bytes, predictor, parity)
    card = replace(card, macs=macs, early_exit=early, calibration=calibration)
    if not random_weights and card.variant is not None:
        card = replace(card, variant=replace(card.variant, validation=paired))
    reason = _reason(parity, None if random_weights else paired, limits)
    if reason:
        if kind.find_culprit is not None:
            culprit = kind.find_culprit(whole, converted, dataset.train.images)
            reason += f"; {culprit}" if culprit is not None else ""
        refused = RefusedVariant(reason, card)
        _write_refused(refused, store)
        return refused
    if not random_weights:
        known = source.card.accuracy
        with_train = known is None or known.train is not None
        accuracy = _accuracy(predictor, dataset, found, with_train=with_train)
        card = replace(card, accuracy=accuracy)
    _write(card, onnx_bytes, store)
    return card


def _check_source(card: ModelCard, dataset: Dataset) -> None:
    if card.variant is not None:
        message = (
            f"{card.name!r} is a variant itself, of {card.variant.source!r}: make another one of "
            f"{card.variant.source!r}"
        )
        raise ExportError(message)
    check_dataset(card, dataset)


def _with_early_exit(
    graph: onnx.ModelProto, images: NDArray[np.uint8]
) -> tuple[onnx.ModelProto, EarlyExit | None]:
    """Return ``graph`` with an early exit at the lowest threshold at which no class of ``images``
    changes; ``graph`` itself if there is none."""
    never_again = Predictor(exit_early(graph, 0.0).SerializeToString(), _CPU)
    always = Predictor(graph.SerializeToString(), _CPU)
    early = choose_exit(predict(never_again, images), predict(always, images))
    if early is None:
        return graph, None
    logger.info(
        "early exit at confidence %g: %.1f %% of %d validation images need the second view",
        early.confidence, 100 * early.second_looks, early.images,
    )  # fmt: skip
    return exit_early(graph, early.confidence), early


def _reason(parity: Parity, paired: PairedTest | None, limits: VariantLimits) -> str:
    """Return the reason for a refusal, to follow "it"; empty if it is not refused."""
    if not np.isfinite(parity.max_absolute_difference):
        return "gives probabilities that are no numbers"
    if paired is None:
        return ""
    if paired.difference > limits.accuracy_loss:
        return (
            f"loses {paired.difference * 100:.2f} points on {paired.images:,} validation images "
            f"(p = {paired.p_value:.2g}), more than {limits.accuracy_loss * 100:g}"
        )
    if parity.top1_agreement < limits.top1_agreement:
        return (
            f"names the class that its source names for only {parity.top1_agreement:.1%} of "
            f"{paired.images:,} validation images, less than {limits.top1_agreement:.0%}"
        )
    return ""


def _accuracy(
    predictor: Predictor, dataset: Dataset, validation: NDArray[np.float32], *, with_train: bool
) -> AccuracyRecord:
    """Measure the accuracy of the variant's own file.

    Args:
        predictor: predictor of the variant.
        dataset: the images.
        validation: its answers for the validation images, float32 (N, classes).
        with_train: whether to measure training accuracy, as the source's card does.
    """

    def of(split: Split) -> NDArray[np.intp]:
        classes: NDArray[np.intp] = predict(predictor, split.images).argmax(axis=1)
        return classes

    train = None
    if with_train:
        train = measure_accuracy(of(dataset.train), dataset.train.labels, dataset.labels)
    test = measure_accuracy(of(dataset.test), dataset.test.labels, dataset.labels)
    return AccuracyRecord(
        train=train,
        validation=measure_accuracy(
            validation.argmax(axis=1), dataset.validation.labels, dataset.labels
        ),
        test=test,
        overfitting_gap=train.accuracy - test.accuracy if train is not None else None,
    )


def _card(
    source: ModelCard,
    precision: VariantPrecision,
    kind: _Kind,
    graph: onnx.ModelProto,
    onnx_bytes: bytes,
    predictor: Predictor,
    parity: Parity,
) -> ModelCard:
    """Return the variant's card without the fields that need labels."""
    answers = predictor.predict(golden_images(predictor.image_shape))
    return replace(
        source,
        schema_version=SCHEMA_VERSION,
        name=variant_name(source.name, precision),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        precision=precision,
        size_bytes=len(onnx_bytes),
        opset=next(entry.version for entry in graph.opset_import if not entry.domain),
        sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        parity=parity,
        golden=Golden(tuple(tuple(row) for row in answers.tolist()), kind.golden_tolerance),
        accuracy=None,
        versions=source.versions
        | {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        variant=VariantRecord(
            source=source.name,
            source_sha256=source.sha256,
            method=kind.method,
            calibration_images=kind.calibration_images,
            validation=None,
        ),
    )


def _write(card: ModelCard, onnx_bytes: bytes, store: ModelStore) -> None:
    text = to_json(card)
    if read_card(text) != card:
        message = f"the card of {card.name!r} changes when written to JSON and read back"
        raise ExportError(message)
    folder = store.folder(card.name)
    (folder / CARD_FILE).unlink(missing_ok=True)
    (folder / REFUSED_FILE).unlink(missing_ok=True)
    write_atomic(folder / ONNX_FILE, onnx_bytes)
    write_atomic(folder / README_FILE, describe(card))
    write_atomic(folder / CARD_FILE, text)


def _write_refused(refused: RefusedVariant, store: ModelStore) -> None:
    text = to_json(refused)
    if read_refused(text) != refused:
        message = f"the refusal of {refused.card.name!r} changes when written to JSON and read back"
        raise ExportError(message)
    folder = store.folder(refused.card.name)
    (folder / CARD_FILE).unlink(missing_ok=True)
    (folder / ONNX_FILE).unlink(missing_ok=True)
    (folder / README_FILE).unlink(missing_ok=True)
    write_atomic(folder / REFUSED_FILE, text)
