"""Calibrate a graph: divide its logits by a temperature, and choose the thresholds of its verdicts.

A network trained to convergence is overconfident, one trained on softened targets underconfident.
One number corrects most of that: the temperature, which is fitted on validation images by maximum
likelihood and folded into the graph before its softmax. It changes no answer, only the confidence.

Source: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks",
ICML 2017 (arXiv 1706.04599).
"""

import math
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cifar10.card import ModelCard
from cifar10.contract import OUTPUT
from cifar10.dataset import Dataset, Split
from cifar10.errors import ExportError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.reliability import measure_reliability
from cifar10.store import CARD_FILE, README_FILE, ModelStore, write_atomic
from cifar10.verdict import REJECTED_SHARE, REJECTION, Calibration, choose_thresholds
from export.batches import predict
from export.graph import GraphEditor
from export.readme import describe

TEMPERATURES: Final = (0.2, 5.0)
"""Range in which the temperature is searched."""

_LEAST_PROBABILITY: Final = 1e-12
_STEPS: Final = 60
_NODE: Final = "temperature"
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def calibrate(
    model: onnx.ModelProto, validation: Split, images: str, labels: tuple[str, ...]
) -> tuple[onnx.ModelProto, Calibration]:
    """Return the graph with its temperature folded in, and the thresholds of its verdicts.

    Args:
        model: a graph that ends in a softmax.
        validation: images that were not used in training.
        images: description of these images, for the card.
        labels: names of the classes.

    Raises:
        ExportError: the graph does not end in a softmax.
    """
    before = _answers(model, validation)
    temperature = fit_temperature(before, validation.labels)
    calibrated = fold_temperature(model, temperature)
    after = _answers(calibrated, validation)
    return calibrated, describe_confidence(after, validation.labels, labels, images, temperature)


def choose_verdicts(name: str, store: ModelStore, dataset: Dataset) -> ModelCard:
    """Choose the thresholds of an exported model again, without changing its graph.

    Raises:
        StoreError: there is no such model.
        ExportError: its weights are random, or ``dataset`` is not the one that it was trained on.
    """
    stored = store.load(name)
    card = stored.card
    if card.accuracy is None:
        message = f"{name!r} has random weights: its confidence means nothing"
        raise ExportError(message)
    check_dataset(card, dataset)
    found = describe_confidence(
        _answers(onnx.load_from_string(stored.onnx), dataset.validation),
        dataset.validation.labels,
        card.labels,
        f"validation images of {dataset.record.variant}",
        card.calibration.temperature if card.calibration is not None else 1.0,
    )
    card = replace(card, calibration=found)
    folder = store.folder(name)
    write_atomic(folder / README_FILE, describe(card))
    write_atomic(folder / CARD_FILE, to_json(card))
    return card


def check_dataset(card: ModelCard, dataset: Dataset) -> None:
    """Check that ``dataset`` is the one that the model of ``card`` was trained on.

    Raises:
        ExportError: it is another data set.
    """
    if card.dataset.fingerprint != dataset.record.fingerprint:
        message = (
            f"{card.name!r} was trained on {card.dataset.variant} "
            f"({card.dataset.fingerprint[:12]}), but the data here is {dataset.record.variant} "
            f"({dataset.record.fingerprint[:12]}), split otherwise: what is for validation here "
            "may have been trained on. Name the same images with --data"
        )
        raise ExportError(message)


def at_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities at another temperature, float32 (N, classes)."""
    exact = np.maximum(probabilities.astype(np.float64), _LEAST_PROBABILITY)
    raised = np.log(exact) / temperature
    raised = np.exp(raised - raised.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    """Return the temperature with the least mean negative log-likelihood, by golden-section search.

    Args:
        probabilities: float32 (N, classes), rows summing to 1, as the graph gives them now.
        labels: integer (N,), the true classes.
    """

    def loss(log_temperature: float) -> float:
        found = at_temperature(probabilities, math.exp(log_temperature))
        true = found[np.arange(len(labels)), labels.astype(np.int64)]
        return float(-np.log(np.maximum(true, _LEAST_PROBABILITY)).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 4)


def fold_temperature(model: onnx.ModelProto, temperature: float) -> onnx.ModelProto:
    """Return the graph with its logits divided by ``temperature``.

    The constants of a last dense layer are scaled, which costs nothing when it runs; elsewhere a
    multiplication is added.

    Raises:
        ExportError: the graph does not end in a softmax.
    """
    graph = GraphEditor(model)
    softmax = graph.producer(OUTPUT.name)
    if softmax is None or softmax.op_type != "Softmax":
        found = softmax.op_type if softmax is not None else "an input"
        message = f"the graph ends in {found}; a temperature needs a softmax at the end"
        raise ExportError(message)
    logits = str(softmax.input[0])
    dense = graph.producer(logits)
    if dense is not None and graph.reader(logits) is not None and _scale(graph, dense, temperature):
        return graph.finish()
    factor = graph.add_constant("inverse_temperature", np.array(1 / temperature, np.float32))
    scaled = helper.make_node("Mul", [logits, factor], ["scaled_logits"], _NODE)
    after = onnx.NodeProto()
    after.CopyFrom(softmax)
    after.input[0] = "scaled_logits"
    graph.replace([softmax], [scaled, after])
    return graph.finish()


def _answers(model: onnx.ModelProto, split: Split) -> NDArray[np.float32]:
    predictor = Predictor(model.SerializeToString(), PredictorOptions(device="cpu"))
    return predict(predictor, split.images)


def _scale(graph: GraphEditor, dense: onnx.NodeProto, temperature: float) -> bool:
    """Scale the constants of a dense layer (MatMul and Add, or Gemm) in float32, or of an earlier
    temperature, if it is one."""
    if dense.op_type == "Add":
        product = graph.producer(dense.input[0])
        if product is None or product.op_type != "MatMul" or not graph.reader(dense.input[0]):
            return False
        places = [(product, 1), (dense, 1)]
    elif dense.op_type == "Gemm":
        places = [(dense, place) for place in range(1, len(dense.input))]
    elif dense.op_type == "Mul" and dense.name == _NODE:  # an earlier temperature
        places = [(dense, 1)]
    else:
        return False
    values = [graph.constant(node.input[place]) for node, place in places]
    constants = [value for value in values if value is not None and value.dtype == np.float32]
    if len(constants) < len(values):
        return False
    for (node, place), value in zip(places, constants, strict=True):
        scaled = (value.astype(np.float64) / temperature).astype(np.float32)
        node.input[place] = graph.add_constant(f"{node.input[place]}_calibrated", scaled)
    return True


def describe_confidence(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.integer],
    names: tuple[str, ...],
    images: str,
    temperature: float = 1.0,
) -> Calibration:
    """Choose the thresholds of the verdicts on the answers of a finished graph.

    Args:
        probabilities: the graph's answers for validation images, float32 (N, classes).
        labels: their true classes, integer (N,).
        names: names of the classes.
        images: description of the images, for the card.
        temperature: temperature that is folded into the graph.
    """
    answers = probabilities.argmax(axis=1)
    confidences = probabilities.max(axis=1)
    right = answers == labels
    rejected = 0.0
    if REJECTION in names:
        accepted = answers != names.index(REJECTION)
    else:
        rejected = float(np.quantile(confidences, REJECTED_SHARE, method="lower"))
        accepted = confidences >= rejected
    sure, likely = choose_thresholds(confidences[accepted], right[accepted])
    return Calibration(
        temperature=temperature,
        error=round(measure_reliability(probabilities, labels).expected_calibration_error, 5),
        images=images,
        image_count=len(labels),
        sure=sure,
        likely=likely,
        rejected=rejected,
    )
