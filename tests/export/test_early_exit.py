"""The mirror image is looked at only where the image alone leaves doubt; what is answered is the
mean of both there, and that of the image alone elsewhere."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from cifar10.card import EarlyExit, ModelCard, read_card
from cifar10.dataset import Dataset
from cifar10.errors import ExportError
from cifar10.records import to_json
from cifar10.store import ModelStore
from export.calibrate import describe_confidence
from export.convert import convert
from export.early_exit import THRESHOLDS, choose_exit, exit_early, looks_twice
from export.graph import GraphEditor
from export.macs import count_macs
from export.quantize import quantize_int8
from export.run import export_model
from export.variants import VariantLimits, make_variant
from tests.export.graphs import CONTRACT, answers, contract, operators, small_convolution
from tests.export.test_mirrored import mirrored_recipe
from tests.training.tiny import TINY_SCHEDULED
from training.networks.models import build_model
from training.run import train

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NEVER, ALWAYS = 0.0, 1.1
ANYTHING = VariantLimits(accuracy_loss=1.0, top1_agreement=0.0)


@pytest.fixture(scope="module")
def graphs(dataset: Dataset) -> dict[str, onnx.ModelProto]:
    """Return graphs of the same weights: fp32 and int8 for both views, fp32 for one view."""
    keras.utils.set_random_seed(0)
    alone = build_model(TINY_SCHEDULED)
    for _ in range(100):  # or the activations would be nowhere near normalised
        alone(dataset.train.images[:64], training=True)
    both = build_model(mirrored_recipe(shift=1))
    both.set_weights(alone.get_weights())
    graph = convert(both)
    return {
        "fp32": graph,
        "int8": quantize_int8(graph, dataset.train.images),
        "alone": convert(alone),
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_each_image_has_one_of_two_answers(
    graphs: dict[str, onnx.ModelProto], dataset: Dataset, precision: str
) -> None:
    model, images = graphs[precision], dataset.test.images
    both = answers(model, images)
    first = answers(exit_early(model, NEVER), images)
    if precision == "fp32":
        np.testing.assert_allclose(first, answers(graphs["alone"], images), atol=1e-6)
    np.testing.assert_allclose(answers(exit_early(model, ALWAYS), images), both, atol=1e-6)
    assert np.abs(first - both).max() > 1e-3

    sure = first.max(axis=1)
    confidence = float(np.median(sure))
    unsure = sure < np.float32(confidence)
    assert 0 < unsure.sum() < len(images)
    model = exit_early(model, confidence)
    assert contract(model) == CONTRACT
    found = answers(model, images)
    expected = np.where(unsure[:, np.newaxis], both, first)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # What one image is answered does not depend on those beside it.
    one_by_one = np.concatenate([answers(model, images[[place]]) for place in range(20)])
    np.testing.assert_allclose(one_by_one, expected[:20], atol=1e-6)


def test_the_second_view_is_computed_in_integers_and_only_if_needed(
    graphs: dict[str, onnx.ModelProto], dataset: Dataset, tmp_path: Path
) -> None:
    images = dataset.test.images
    sure = answers(exit_early(graphs["int8"], NEVER), images).max(axis=1)
    surest, least = int(sure.argmax()), int(sure.argmin())
    model = exit_early(graphs["int8"], float(sure[surest]))

    def ran(images: NDArray[np.uint8]) -> dict[str, int]:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {"image": images})
        events = json.loads(Path(session.end_profiling()).read_text())
        kernels = [
            event["args"].get("op_name") for event in events if "_kernel_time" in event["name"]
        ]
        return {name: kernels.count(name) for name in set(kernels)}

    once, twice = (ran(images[[place]]) for place in (surest, least))
    assert once["QLinearConv"] > 0
    assert twice["QLinearConv"] == 2 * once["QLinearConv"]
    assert "Conv" not in twice
    assert "ScatterND" in twice
    assert "ScatterND" not in once


def test_the_weights_are_stored_once(graphs: dict[str, onnx.ModelProto]) -> None:
    before, after = graphs["int8"], exit_early(graphs["int8"], 0.5)
    sizes = [sum(len(tensor.raw_data) for tensor in model.graph.initializer)
             for model in (before, after)]  # fmt: skip
    assert sizes[1] - sizes[0] < 100
    (choice,) = [node for node in after.graph.node if node.op_type == "If"]
    assert not any(attribute.g.initializer for attribute in choice.attribute)


def test_a_graph_with_one_view_is_refused(graphs: dict[str, onnx.ModelProto]) -> None:
    assert looks_twice(graphs["fp32"])
    assert looks_twice(graphs["int8"])
    for model in (graphs["alone"], small_convolution(-1.0)):
        assert not looks_twice(model)
        with pytest.raises(
            ExportError, match="does not put an image and another view of it into one"
        ):
            exit_early(model, 0.5)


def test_a_graph_without_the_mean_of_both_views_is_refused(
    graphs: dict[str, onnx.ModelProto],
) -> None:
    changed = GraphEditor(graphs["fp32"])
    mean = next(node for node in reversed(changed.nodes) if node.op_type == "ReduceMean")
    changed.replace(
        [mean], [helper.make_node("ReduceMax", mean.input, mean.output, mean.name, keepdims=0)]
    )
    model = changed.finish()
    assert not looks_twice(model)
    with pytest.raises(ExportError, match="average both"):
        exit_early(model, 0.5)


def test_the_threshold_is_the_least_that_changes_no_class() -> None:
    first = np.full((4, 10), 0.01, np.float32)
    both = first.copy()
    for row, (sure, changes) in enumerate([(0.9, False), (0.61, True), (0.64, False), (0.3, True)]):
        first[row, 0] = sure
        both[row, int(changes)] = sure
    assert choose_exit(first, both) == EarlyExit(0.65, 0.75, 4)
    first[1, 0] = 0.649
    assert choose_exit(first, both) == EarlyExit(0.65, 0.75, 4)
    first[1, 0] = 0.65  # itself is not below it
    assert choose_exit(first, both) == EarlyExit(0.7, 0.75, 4)
    first[1, 0] = 0.96
    assert choose_exit(first, both) is None
    assert choose_exit(both, both) == EarlyExit(THRESHOLDS[0], 0.25, 4)


def test_the_int8_variant_of_a_mirrored_model_exits_early(tmp_path: Path, dataset: Dataset) -> None:
    store = ModelStore(tmp_path)
    train(mirrored_recipe(shift=1), dataset, store)
    source = export_model("mirrored", store, dataset)
    assert source.early_exit is None
    assert "If" not in operators(onnx.load_from_string(store.load("mirrored").onnx))
    card = make_variant("mirrored", "int8", store, dataset, ANYTHING)
    assert isinstance(card, ModelCard)
    found = store.load("mirrored_int8")
    dense = quantize_int8(onnx.load_from_string(store.load("mirrored").onnx), dataset.train.images)
    images = dataset.validation.images
    first, both = (answers(model, images) for model in (exit_early(dense, NEVER), dense))
    assert card.early_exit == choose_exit(first, both)
    assert card.macs == count_macs(dense)
    assert card.calibration is not None
    assert card.calibration == describe_confidence(  # as the finished file answers
        answers(found.onnx, images),
        dataset.validation.labels,
        card.labels,
        card.calibration.images,
        card.calibration.temperature,
    )
    if card.early_exit is not None:
        assert "If" in operators(onnx.load_from_string(found.onnx))
        classes = answers(found.onnx, images).argmax(axis=1)
        assert (classes == both.argmax(axis=1)).all()
    # Float16 is for GPUs, where a condition costs more than the second view.
    half = make_variant("mirrored", "fp16", store, dataset, ANYTHING)
    assert isinstance(half, ModelCard)
    assert half.early_exit is None


def test_older_cards_have_no_early_exit(store: ModelStore) -> None:
    card = store.card("tiny")
    fields = dataclasses.asdict(card)
    assert fields["early_exit"] is None
    text = to_json(card)
    assert read_card(text.replace('"early_exit": null', '"teacher": null')) == card
