"""Tests of the temperature, which changes confidences and no answer, and of what the card says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from cifar10.card import read_card
from cifar10.dataset import Dataset, Split
from cifar10.errors import ExportError
from cifar10.labels import LABELS
from cifar10.records import to_json
from cifar10.reliability import measure_reliability
from cifar10.store import CARD_FILE, README_FILE, ModelStore, write_atomic
from export.calibrate import (
    at_temperature,
    calibrate,
    choose_verdicts,
    describe_confidence,
    fit_temperature,
    fold_temperature,
)
from export.graph import GraphEditor
from export.readme import describe
from export.variants import VariantLimits, make_variant
from tests.export.graphs import answers, small_convolution

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNT = 20_000


def drawn(temperature: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities, and labels drawn with exactly the probabilities at ``temperature``."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (COUNT, 10)).astype(np.float32)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = at_temperature(found, temperature)
    labels = (random.random((COUNT, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return found, np.minimum(labels, 9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature):
    probabilities, labels = drawn(temperature)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    calibrated = at_temperature(probabilities, found)
    assert measure_reliability(calibrated, labels).expected_calibration_error < 0.012


@pytest.mark.parametrize("ending", ["dense", "convolution"])
def test_a_folded_temperature_gives_the_same_logits_divided(exported: Path, dataset, ending):
    if ending == "dense":
        model = onnx.load_from_string(ModelStore(exported).load("tiny").onnx)
    else:
        model = small_convolution(0.1)
    before = answers(model, dataset.test.images)
    folded = fold_temperature(model, 0.5)
    found = answers(folded, dataset.test.images)
    np.testing.assert_allclose(found, at_temperature(before, 0.5), atol=1e-6)
    assert (found.argmax(axis=1) == before.argmax(axis=1)).all()
    assert np.abs(found - before).max() > 1e-4
    again = fold_temperature(folded, 4.0)
    np.testing.assert_allclose(
        answers(again, dataset.test.images), at_temperature(before, 2.0), atol=1e-6
    )
    assert len(again.graph.node) == len(folded.graph.node)
    if ending == "dense":
        assert len(folded.graph.node) == len(model.graph.node)  # nothing more to run


def test_a_graph_without_softmax_is_refused(exported: Path):
    graph = GraphEditor(onnx.load_from_string(ModelStore(exported).load("tiny").onnx))
    softmax = graph.nodes[-1]
    sigmoid = helper.make_node("Sigmoid", softmax.input, softmax.output, "last")
    graph.replace([softmax], [sigmoid])
    with pytest.raises(ExportError, match="ends in Sigmoid"):
        fold_temperature(graph.finish(), 2.0)


def test_an_export_and_its_variant_say_their_calibration(store: ModelStore, dataset: Dataset):
    source = store.card("tiny")
    assert source.calibration is not None
    assert source.calibration.image_count == len(dataset.validation.labels)
    anything = VariantLimits(accuracy_loss=1.0, top1_agreement=0.0)
    card = make_variant("tiny", "int8", store, dataset, anything)
    stored = store.load("tiny_int8")
    assert stored.card == card
    found = answers(stored.onnx, dataset.validation.images)
    assert stored.card.calibration is not None
    again = describe_confidence(
        found,
        dataset.validation.labels,
        stored.card.labels,
        stored.card.calibration.images,
        stored.card.calibration.temperature,
    )
    assert again == stored.card.calibration


def test_the_rejection_label_takes_the_place_of_the_lowest_threshold():
    probabilities, labels = drawn(1.0)
    names = (*"abcdefghi", "none")
    assert describe_confidence(probabilities, labels, names, "drawn").rejected == 0
    without = describe_confidence(probabilities, labels, tuple("abcdefghij"), "drawn")
    share = float(np.mean(probabilities.max(axis=1) < without.rejected))
    assert share == pytest.approx(0.005, abs=0.001)


def test_a_calibrated_graph_needs_no_other_temperature(exported: Path, dataset: Dataset):
    model = onnx.load_from_string(ModelStore(exported).load("tiny").onnx)
    chosen = answers(model, dataset.train.images).argmax(axis=1)
    random = np.random.default_rng(0)
    labels = np.where(random.random(len(chosen)) < 0.8, chosen, (chosen + 1) % 10)
    images = Split(dataset.train.images, labels.astype(np.uint8))
    once, _ = calibrate(model, images, "drawn", LABELS)
    _, again = calibrate(once, images, "drawn", LABELS)
    assert again.temperature == pytest.approx(1.0, abs=0.01)


def test_thresholds_can_be_chosen_anew_and_the_file_stays(store: ModelStore, dataset: Dataset):
    before = store.load("tiny")
    older = replace(before.card, calibration=None)
    write_atomic(store.folder("tiny") / CARD_FILE, to_json(older))
    card = choose_verdicts("tiny", store, dataset)
    after = store.load("tiny")
    assert after.card == card
    assert after.onnx == before.onnx
    assert before.card.calibration is not None
    assert card.calibration == replace(before.card.calibration, temperature=1.0)
    assert (store.folder("tiny") / README_FILE).read_text() == describe(card)
    other = replace(dataset, record=replace(dataset.record, fingerprint="0" * 64))
    with pytest.raises(ExportError, match="but the data here is"):
        choose_verdicts("tiny", store, other)


def test_older_cards_have_no_calibration(store: ModelStore):
    text = to_json(store.card("tiny"))
    start = text.index('  "calibration": {')
    end = text.index("}", start) + 1
    older = text[:start].rstrip().rstrip(",") + text[end:]
    assert read_card(older).calibration is None
