"""Tests of export: the model equals the trained one, and is written completely or not at all."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.run
from cifar10.card import WeightsRecord
from cifar10.commands.main import main
from cifar10.dataset import Dataset
from cifar10.errors import (
    DigestMismatchError,
    ExportError,
    InvalidCardError,
    InvalidGraphError,
    ModelNotFoundError,
)
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from export.convert import convert
from export.macs import count_macs
from export.parity import ParityLimits, check_parity
from export.run import export_model
from tests.training.tiny import TINY, tiny_dataset
from training.networks.backbone_models import build_backbone
from training.networks.backbones import Backbone, Head
from training.networks.models import build_model
from training.recipes.catalogue import RECIPES
from training.run import train
from training.weights import calibrate_random

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = PredictorOptions(device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    root = tmp_path_factory.mktemp("trained")
    train(TINY, dataset, ModelStore(root))
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(trained, tmp_path / "models")
    return ModelStore(tmp_path / "models")


def files(store: ModelStore) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in store.folder("tiny").iterdir()}


def test_the_card_describes_the_graph(store: ModelStore, dataset: Dataset) -> None:
    written = export_model("tiny", store, dataset)
    found = store.load("tiny")  # checks the digest
    assert found.card == written
    assert found.card.size_bytes == len(found.onnx)
    assert found.card.parity.image_count == len(dataset.validation.labels)
    assert found.card.parity.max_absolute_difference <= 1e-4
    assert found.card.parity.top1_agreement == 1.0
    assert found.card.parameters == TINY.expected_parameters
    assert {"keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime"} <= found.card.versions.keys()
    assert found.card.accuracy is not None
    predictor = Predictor(found.onnx, CPU)
    predictor.check_card(found.card)
    predicted = predictor.predict(dataset.test.images).argmax(axis=1)
    assert np.mean(predicted == dataset.test.labels) == found.card.accuracy.test.accuracy


def test_the_graph_keeps_the_contract(store: ModelStore, dataset: Dataset) -> None:
    export_model("tiny", store, dataset)
    graph = onnx.load(store.folder("tiny") / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 18
    shapes = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [part.dim_param or part.dim_value for part in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    assert shapes == [
        ("image", TensorProto.UINT8, ["batch", 32, 32, 3]),
        ("probabilities", TensorProto.FLOAT, ["batch", 10]),
    ]


def test_any_batch_size_gives_the_same_answers(store: ModelStore, dataset: Dataset) -> None:
    export_model("tiny", store, dataset)
    predictor = Predictor(store.load("tiny").onnx, CPU)
    images = dataset.test.images
    whole = predictor.predict(images)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-5)
    for size in (1, 3, 32):
        np.testing.assert_allclose(predictor.predict(images[:size]), whole[:size], atol=1e-6)


def perturbed(model: object) -> onnx.ModelProto:
    """Return a graph with one wrong bias, as from a faulty converter."""
    graph = convert(model)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.shape == (10,):
            changed = values + np.float32(0.5) * np.arange(10, dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
            return graph
    raise LookupError


def test_a_wrong_graph_leaves_nothing(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(store)
    monkeypatch.setattr(export.run, "convert", perturbed)
    with pytest.raises(ExportError, match="not the Keras model"):
        export_model("tiny", store, dataset)
    assert files(store) == before
    assert store.names() == []


def test_a_wrong_graph_leaves_the_previous_export_unchanged(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model("tiny", store, dataset)
    before = files(store)
    monkeypatch.setattr(export.run, "convert", perturbed)
    with pytest.raises(ExportError):
        export_model("tiny", store, dataset)
    assert files(store) == before


def test_limits_are_enforced(store: ModelStore, dataset: Dataset) -> None:
    with pytest.raises(ExportError, match="by at most 0 on"):
        export_model("tiny", store, dataset, ParityLimits(max_absolute_difference=0.0))


class Answers:
    """Fake model, in Keras or ONNX Runtime, with given answers to given images."""

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = answers

    def predict(self, images: np.ndarray, **_: object) -> np.ndarray:
        return self.answers[images[:, 0, 0, 0]].copy()


@pytest.mark.parametrize("others", [0, 1, 2])
def test_one_image_in_a_hundred_may_differ_where_weights_are_random(others: int) -> None:
    """That image may even get another class; with trained weights none may differ."""
    images = np.zeros((100, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(100)
    answers = np.eye(10, dtype=np.float32)[np.arange(100) % 10]
    other = answers.copy()
    other[50 : 50 + others] = np.roll(answers[50 : 50 + others], 1, axis=1)
    ours, theirs = Answers(other), Answers(answers)
    fitted, drawn = ParityLimits(), ParityLimits(top1_agreement=0.99)
    if others:
        with pytest.raises(ExportError, match=r"on 9\d\.00% of them"):
            check_parity(theirs, ours, images, "these", fitted)
    if others == 2:
        with pytest.raises(ExportError, match=r"on 98\.00% of them"):
            check_parity(theirs, ours, images, "these", drawn)
    else:
        found = check_parity(theirs, ours, images, "these", drawn)
        assert found.max_absolute_difference == others
        assert found.top1_agreement == 1 - others / 100
    # What ONNX Runtime gives for no number is no agreement.
    other[7, 0] = np.nan
    with pytest.raises(ExportError, match="by up to inf"):
        check_parity(theirs, ours, images, "these", fitted)


@pytest.mark.parametrize("written", [0, 1])
def test_a_crash_never_leaves_a_card_beside_another_graph(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    export_model("tiny", store, dataset)
    write, left = export.run.write_atomic, [written]

    def crashing(path: Path, data: bytes | str) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, data)

    monkeypatch.setattr(export.run, "write_atomic", crashing)
    with pytest.raises(KeyboardInterrupt):
        export_model("tiny", store, dataset)
    assert store.names() == []


def test_a_graph_with_a_weight_as_input_is_refused(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfrozen(*_: object, **__: object) -> tuple[onnx.ModelProto, None]:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["image", "mean"], ["answer"])],
            "unfrozen",
            [
                value("image", TensorProto.FLOAT, [1, 10]),
                value("mean", TensorProto.FLOAT, [10, 10]),
            ],
            [value("answer", TensorProto.FLOAT, [1, 10])],
        )
        return helper.make_model(graph), None

    monkeypatch.setattr(export.convert.tf2onnx.convert, "from_function", unfrozen)
    with pytest.raises(ExportError, match=r"\['image', 'mean'\]"):
        export_model("tiny", store, dataset)


def test_another_keras_file_is_refused(store: ModelStore, dataset: Dataset) -> None:
    model = build_model(TINY)  # valid, with weights that nobody trained
    model.save(store.folder("tiny") / "model.keras")
    recorded = export.run.read_training_record(files(store)["training.json"]).keras_sha256
    with pytest.raises(DigestMismatchError, match=recorded):
        export_model("tiny", store, dataset)
    assert store.names() == []


def test_an_untrained_model_is_not_exported(store: ModelStore, dataset: Dataset) -> None:
    with pytest.raises(ModelNotFoundError, match="cifar10 train other"):
        export_model("other", store, dataset)
    shutil.copytree(store.folder("tiny"), store.folder("other"))
    with pytest.raises(InvalidCardError, match="'tiny', not of 'other'"):
        export_model("other", store, dataset)
    (store.folder("tiny") / "model.keras").unlink()
    with pytest.raises(ModelNotFoundError, match="is missing"):
        export_model("tiny", store, dataset)


def test_macs_of_the_simple_cnn_are_the_published_ones() -> None:
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == "simple_cnn")
    # By hand: 32·32·32·27 + 16·16·64·288 + 4,096·512 + 512·10
    assert count_macs(convert(build_model(recipe))) == 7_705_600


@pytest.mark.parametrize(
    ("backbone", "resolution", "macs", "transposes"),
    [
        ("resnet50", 32, 79.2e6, 2),  # BGR
        ("mobilenetv2", 96, None, 2),  # resized inside
        ("mobilenetv3large", 32, 6.09e6, 2),  # adds scalars
        ("efficientnetb0", 32, 8.79e6, 12),  # normalises with constants
    ],
)
def test_every_backbone_can_be_converted(
    backbone: str, resolution: int, macs: float | None, transposes: int
) -> None:
    """Convert each kind of backbone with calibrated random weights.

    Channels are last in Keras and first in ONNX: tf2onnx removes nearly all transpositions between
    the two, or, where its optimiser fails, none of a hundred or more.
    """
    architecture = Backbone(
        backbone=backbone,
        resolution=resolution,
        preprocessing="native",
        head=Head(pooling="average", dense_units=(256,), dropout=(0.5,)),
        trained_layers=(0,),
    )
    keras.utils.set_random_seed(0)
    built = build_backbone(architecture, "backbone")
    images = tiny_dataset().train.images[:64]
    calibrate_random(built, architecture, images)
    graph = convert(built.model)
    found = Predictor(graph.SerializeToString(), CPU).predict(images)
    expected = np.asarray(built.model(images, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert expected.std(axis=0).max() > 1e-2, "near-constant answers would prove nothing"
    assert sum(node.op_type == "Transpose" for node in graph.graph.node) <= transposes
    if macs is not None:
        assert count_macs(graph) == pytest.approx(macs, rel=0.01)


def test_macs_need_known_shapes() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "weight"], ["answer"])],
        "unknown",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", "length"]),
            helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["length", 10]),
        ],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 10])],
    )
    with pytest.raises(ExportError, match="'weight'"):
        count_macs(helper.make_model(graph))


def test_macs_of_grouped_convolutions_and_transposed_gemms() -> None:
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "depthwise"], ["y"], group=8, pads=[1, 1, 1, 1]),
            helper.make_node("Gemm", ["a", "b"], ["c"], transB=1),
        ],
        "counted",
        [
            values("x", TensorProto.FLOAT, ["batch", 8, 5, 5]),
            values("a", TensorProto.FLOAT, ["batch", 6]),
        ],
        [
            values("y", TensorProto.FLOAT, ["batch", 8, 5, 5]),
            values("c", TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            numpy_helper.from_array(np.zeros((8, 1, 3, 3), np.float32), "depthwise"),
            numpy_helper.from_array(np.zeros((4, 6), np.float32), "b"),
        ],
    )
    assert count_macs(helper.make_model(graph)) == 8 * 5 * 5 * 9 + 4 * 6


def test_a_model_with_random_weights_shows_no_accuracy(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export.run.read_training_record
    weights = WeightsRecord("mobilenetv2", "none", "0" * 64, random=True)
    monkeypatch.setattr(
        export.run,
        "read_training_record",
        lambda text: dataclasses.replace(read(text), weights=weights),
    )
    assert export_model("tiny", store, dataset).accuracy is None


def test_the_command_continues_after_a_failure(
    store: ModelStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # the command sets them: put them back afterwards
    arguments = ["--models-dir", str(store.root), "--data", "synthetic"]
    assert main(["export", "missing", "tiny", *arguments]) == 3
    output = capsys.readouterr()
    assert output.err.startswith("error: missing: no finished training")
    assert output.err.count("\n") == 1
    assert "top-1 agreement 100.00%" in output.out
    assert store.names() == ["tiny"]
    assert main(["export", "tiny", *arguments]) == 0


def test_the_command_exports_all_that_is_trained(
    store: ModelStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    store.folder("unfinished").mkdir()
    assert main(["export", "--all", "--models-dir", str(store.root), "--data", "synthetic"]) == 0
    assert store.names() == ["tiny"]
    for arguments in ([], ["tiny", "--all"]):
        assert main(["export", *arguments]) == 2
        assert "or say --all" in capsys.readouterr().err


def test_the_command_says_that_data_is_missing(
    store: ModelStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    assert main(["export", "tiny", "--models-dir", str(store.root)]) == 3
    error = capsys.readouterr().err
    assert "--data" in error
    assert "CIFAR10_DATA" in error
    assert store.names() == []


def test_a_graph_that_breaks_the_contract_leaves_nothing(
    store: ModelStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(model: object) -> onnx.ModelProto:
        graph = convert(model)
        graph.graph.node[-1].output[0] = graph.graph.output[0].name = "answer"
        return graph

    monkeypatch.setattr(export.run, "convert", renamed)
    before = files(store)
    with pytest.raises(InvalidGraphError, match="answer"):
        export_model("tiny", store, dataset)
    assert files(store) == before


def test_a_recipe_s_name_leads_to_the_model_of_own_images(store: ModelStore) -> None:
    store.folder("tiny").rename(store.root / "flowers_tiny")
    with pytest.raises(ModelNotFoundError, match=r"Did you mean flowers_tiny\?$"):
        export.run.training_record("tiny", store)
