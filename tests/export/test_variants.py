"""An int8 or float16 variant is a model of its own that answers as its source does, or is refused
with a reason."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cifar10.card import ModelCard, RefusedVariant, WeightsRecord
from cifar10.commands.main import main
from cifar10.dataset import Dataset, split_dataset
from cifar10.errors import ExportError, ModelNotFoundError
from cifar10.paired import mcnemar
from cifar10.predictor import Predictor
from cifar10.records import to_json
from cifar10.sources import RawArrays
from cifar10.store import CARD_FILE, README_FILE, ModelStore
from export.variants import VariantLimits, make_variant, sources
from tests.conftest import add_model, linear_onnx
from tests.export.graphs import CONTRACT, CPU, answers, contract

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LOOSE = VariantLimits(accuracy_loss=0.2, top1_agreement=0.7)
"""With 30 validation images one of them is 3.3 points."""


def test_the_card_describes_the_variant(store: ModelStore, dataset: Dataset) -> None:
    source = store.load("tiny")
    made = make_variant("tiny", "int8", store, dataset, LOOSE)
    found = store.load("tiny_int8")  # checks the digest
    assert isinstance(made, ModelCard)
    assert found.card == made
    assert (made.name, made.precision, made.recipe) == ("tiny_int8", "int8", "tiny")
    assert made.size_bytes == len(found.onnx) < source.card.size_bytes
    assert (made.macs, made.parameters) == (source.card.macs, source.card.parameters)
    assert made.variant is not None
    assert (made.variant.source, made.variant.source_sha256) == ("tiny", source.card.sha256)
    Predictor(found.onnx, CPU).check_card(made)
    images, labels = dataset.validation.images, dataset.validation.labels
    before, after = answers(source.onnx, images), answers(found.onnx, images)
    assert made.parity.image_count == len(images)
    assert made.parity.max_absolute_difference == pytest.approx(np.abs(after - before).max())
    assert made.parity.top1_agreement == np.mean(after.argmax(1) == before.argmax(1))
    assert made.variant.validation == mcnemar(before.argmax(1) == labels, after.argmax(1) == labels)
    assert made.accuracy is not None  # its own, on all three
    for split, claimed in (
        (dataset.train, made.accuracy.train),
        (dataset.validation, made.accuracy.validation),
        (dataset.test, made.accuracy.test),
    ):
        assert claimed.count == len(split.labels)
        right = answers(found.onnx, split.images).argmax(1) == split.labels
        assert claimed.accuracy == pytest.approx(right.mean())


def test_float16_is_half_as_large_and_answers_the_same(store: ModelStore, dataset: Dataset) -> None:
    source = store.load("tiny")
    card = make_variant("tiny", "fp16", store, dataset, LOOSE)
    assert isinstance(card, ModelCard)
    assert card.size_bytes < 0.7 * source.card.size_bytes
    assert card.variant is not None
    assert card.variant.calibration_images == 0
    found = store.load("tiny_fp16").onnx
    graph = onnx.load_from_string(found)
    assert contract(graph) == CONTRACT
    assert {tensor.data_type for tensor in graph.graph.initializer} >= {TensorProto.FLOAT16}
    images = dataset.test.images
    np.testing.assert_allclose(answers(found, images), answers(source.onnx, images), atol=5e-3)


def outlier_store(root: Path, raw: RawArrays) -> tuple[ModelStore, Dataset]:
    """A model that 8 bits cannot hold: one hidden value, which nothing depends on, is a thousand
    times as large as the others. Its dataset's labels are its own answers."""
    random = np.random.default_rng(0)
    hidden = random.normal(0, 0.02, (3072, 17)).astype(np.float32)
    hidden[:, 16] = 1.0
    last = random.normal(0, 1.0, (17, 10)).astype(np.float32)
    last[16] = 0
    model = onnx.load_from_string(linear_onnx(0))
    graph = model.graph
    (place,) = [index for index, node in enumerate(graph.node) if node.op_type == "MatMul"]
    del graph.node[place:]
    graph.node.extend(
        [
            helper.make_node("MatMul", ["flat", "hidden"], ["sums"], "hidden"),
            helper.make_node("Relu", ["sums"], ["features"], "relu"),
            helper.make_node("MatMul", ["features", "last"], ["logits"], "last"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
        ]
    )
    for number, node in enumerate(graph.node):
        node.name = node.name or f"node_{number}"
    graph.initializer.extend(
        [numpy_helper.from_array(hidden, "hidden"), numpy_helper.from_array(last, "last")]
    )
    data = model.SerializeToString()
    train_labels, test_labels = (
        answers(data, images).argmax(axis=1).astype(np.uint8)
        for images in (raw.x_train, raw.x_test)
    )
    dataset = split_dataset(
        RawArrays(raw.x_train, train_labels, raw.x_test, test_labels), source="synthetic"
    )
    card = dataclasses.replace(add_model(root, "outlier", data), dataset=dataset.record)
    (root / "outlier" / "card.json").write_text(to_json(card))
    return ModelStore(root), dataset


@pytest.fixture
def outlier(tmp_path: Path) -> tuple[ModelStore, Dataset]:
    random = np.random.default_rng(1)
    pictures = random.integers(0, 256, (700, 32, 32, 3), np.uint8)
    labels = np.zeros(700, np.uint8)
    return outlier_store(
        tmp_path / "models", RawArrays(pictures[:600], labels[:600], pictures[600:], labels[600:])
    )


def test_a_variant_that_loses_too_much_accuracy_is_refused_with_the_reason(
    outlier: tuple[ModelStore, Dataset],
) -> None:
    store, dataset = outlier
    kept = make_variant("outlier", "int8", store, dataset, VariantLimits(1.0, 0.0))
    assert isinstance(kept, ModelCard)
    assert store.names() == ["outlier", "outlier_int8"]

    refused = make_variant("outlier", "int8", store, dataset)
    assert isinstance(refused, RefusedVariant)
    record = refused.card.variant
    assert record is not None
    assert record.validation is not None
    lost = f"{record.validation.difference * 100:.2f} points"
    assert record.validation.difference > 0.05
    assert refused.reason.startswith(f"loses {lost} on {len(dataset.validation.labels)} validation")
    assert "the layer that costs most is 'hidden'" in refused.reason
    assert refused.card.accuracy is None  # the test images were not looked at
    assert store.names() == ["outlier"]  # the one that was kept before is gone
    assert [path.name for path in store.folder("outlier_int8").iterdir()] == ["refused.json"]
    assert store.refused() == [refused]
    with pytest.raises(ModelNotFoundError, match=f"refused because it loses {lost}"):
        store.load("outlier_int8")

    make_variant("outlier", "int8", store, dataset, VariantLimits(1.0, 0.0))
    assert store.names() == ["outlier", "outlier_int8"]
    assert store.refused() == []


def test_a_variant_with_different_answers_is_refused(outlier: tuple[ModelStore, Dataset]) -> None:
    store, dataset = outlier
    refused = make_variant("outlier", "int8", store, dataset, VariantLimits(accuracy_loss=1.0))
    assert isinstance(refused, RefusedVariant)
    assert "names the class that its source names for only" in refused.reason


def test_answers_of_random_weights_are_not_compared(
    outlier: tuple[ModelStore, Dataset],
) -> None:
    store, dataset = outlier
    card = dataclasses.replace(
        store.card("outlier"),
        weights=WeightsRecord("backbone", "none", "0" * 64, random=True),
        accuracy=None,
    )
    (store.folder("outlier") / "card.json").write_text(to_json(card))
    made = make_variant("outlier", "int8", store, dataset)
    assert isinstance(made, ModelCard)
    assert made.accuracy is None
    assert made.variant is not None
    assert made.variant.validation is None


def test_a_variant_of_a_variant_is_refused(store: ModelStore, dataset: Dataset) -> None:
    make_variant("tiny", "fp16", store, dataset, LOOSE)
    assert sources(store) == ["tiny"]
    with pytest.raises(ExportError, match="a variant itself, of 'tiny'"):
        make_variant("tiny_fp16", "int8", store, dataset, LOOSE)


def test_images_of_another_data_set_are_refused(store: ModelStore, synthetic: Dataset) -> None:
    with pytest.raises(ExportError, match="may have been trained on"):
        make_variant("tiny", "int8", store, synthetic, LOOSE)
    assert store.names() == ["tiny"]


@pytest.fixture
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # the command sets them: put them back afterwards


@pytest.mark.usefixtures("quiet_environment")
def test_the_command_makes_variants_and_says_what_was_refused(
    outlier: tuple[ModelStore, Dataset],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, dataset = outlier
    monkeypatch.setattr("export.commands.export.dataset_of", lambda *_, **__: dataset)
    assert main(["export", "--all", "--int8", "--fp16", "--models-dir", str(store.root)]) == 0
    output = capsys.readouterr().out
    assert "refused: loses" in output
    assert f"wrote {store.folder('outlier_fp16')}: model.onnx, card.json" in output
    assert store.names() == ["outlier", "outlier_fp16"]


@pytest.mark.usefixtures("quiet_environment")
def test_the_command_says_what_it_needs(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--models-dir", str(store.root), "--data", "synthetic"]
    for arguments in ([], ["--int8"], ["tiny", "--all", "--int8"]):
        assert main(["export", *arguments, *place]) == 2
    capsys.readouterr()
    assert main(["export", "missing", "--int8", *place]) == 3
    assert "error: missing_int8: no model 'missing'" in capsys.readouterr().err


def test_a_source_without_train_accuracy_has_variants_without(
    store: ModelStore, dataset: Dataset
) -> None:
    """``photo`` is such a source: its training images are no photographs."""
    card = store.card("tiny")
    assert card.accuracy is not None
    accuracy = dataclasses.replace(card.accuracy, train=None, overfitting_gap=None)
    card = dataclasses.replace(card, accuracy=accuracy)
    (store.folder("tiny") / CARD_FILE).write_text(to_json(card))
    made = make_variant("tiny", "int8", store, dataset, LOOSE)
    assert isinstance(made, ModelCard)
    assert made.accuracy is not None
    assert (made.accuracy.train, made.accuracy.overfitting_gap) == (None, None)
    readme = (store.folder("tiny_int8") / README_FILE).read_text()
    assert "| train |" not in readme
    assert "| validation |" in readme
