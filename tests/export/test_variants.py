"""An int8 or float16 variant is a model of its own that answers as its source does, or is refused
with a reason."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cifar10.card import ModelCard, RefusedVariant, WeightsRecord
from cifar10.dataset import Dataset, split_dataset
from cifar10.errors import ExportError, ModelNotFoundError
from cifar10.paired import mcnemar
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.sources import RawArrays
from cifar10.store import ModelStore
from export.command_line import main
from export.convert import convert
from export.half import convert_fp16
from export.prepare import prepare
from export.quantize import quantize_int8
from export.run import export_model
from export.variants import VariantLimits, make_variant, sources
from tests.conftest import add_model, linear_onnx
from tests.training.tiny import TINY, tiny_dataset
from training.run import train

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = PredictorOptions(device="cpu")
LOOSE = VariantLimits(accuracy_loss=0.2, top1_agreement=0.7)
"""With 30 validation images one of them is 3.3 points."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    root = tmp_path_factory.mktemp("exported")
    train(TINY, dataset, ModelStore(root))
    export_model("tiny", ModelStore(root), dataset)
    (root / "tiny" / "model.keras").unlink()  # a variant needs none of it
    (root / "tiny" / "training.json").unlink()
    return root


@pytest.fixture
def store(exported: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(exported, tmp_path / "models")
    return ModelStore(tmp_path / "models")


@pytest.fixture(scope="module")
def residual(dataset: Dataset) -> onnx.ModelProto:
    """A residual network: batch normalisation, addition, pooling before a 1×1 convolution, the mean
    over all pixels; pixels scaled to −1…1. Its weights are random, its activations normalised."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
    y = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    shortcut = layers.Conv2D(12, 1)(layers.AveragePooling2D(2)(x))
    x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10, bias_initializer="random_normal")(x)
    model = keras.Model(image, layers.Softmax()(x))
    for _ in range(200):
        model(dataset.train.images[:64], training=True)
    return convert(model)


def answers(model: onnx.ModelProto | bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Predictor(data, CPU).predict(images)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def what_runs(model: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators of the graph that ONNX Runtime makes of it for this processor."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return operators(onnx.load(folder / "optimized.onnx"))


def contract(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [
        (value.name, value.type.tensor_type.elem_type)
        for value in (*model.graph.input, *model.graph.output)
    ]


CONTRACT = [("image", TensorProto.UINT8), ("probabilities", TensorProto.FLOAT)]


def test_the_prepared_graph_computes_the_same(residual: onnx.ModelProto, dataset: Dataset) -> None:
    prepared, pixels = prepare(residual)
    assert {"AveragePool", "ReduceMean", "MatMul"} <= set(operators(residual))
    assert not {"AveragePool", "ReduceMean", "MatMul"} & set(operators(prepared))
    assert pixels is not None
    assert (pixels.zero_point, pixels.scale) == (127, pytest.approx(1 / 127.5))
    before, after = (answers(model, dataset.test.images) for model in (residual, prepared))
    # The offset of −1 is half a grey level from a whole zero point, which is what the border shows.
    np.testing.assert_allclose(after, before, atol=2e-3)
    assert not np.array_equal(after, before)


def test_a_whole_zero_point_changes_nothing(store: ModelStore, dataset: Dataset) -> None:
    source = onnx.load_from_string(store.load("tiny").onnx)
    prepared, pixels = prepare(source)
    assert pixels is not None
    assert pixels.zero_point == 0
    assert {"Shape", "Reshape", "Concat"} <= set(operators(source))
    assert not {"Shape", "Reshape", "Concat"} & set(operators(prepared))
    images = dataset.test.images
    np.testing.assert_allclose(answers(prepared, images), answers(source, images), atol=1e-6)


def test_pixels_scaled_otherwise_stay_as_they_are(dataset: Dataset) -> None:
    """No integer stands for their offset, so their scale is left in the graph."""
    graph = small_convolution(offset=-3.0)
    prepared, pixels = prepare(graph)
    assert pixels is None
    images = dataset.test.images
    np.testing.assert_allclose(answers(prepared, images), answers(graph, images), atol=1e-6)
    assert contract(quantize_int8(graph, dataset.train.images)) == CONTRACT


def small_convolution(offset: float, *, normalised: str = "") -> onnx.ModelProto:
    """Scaled pixels, one convolution, normalised by that operator, a dense layer."""
    random = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    constants = {
        "scale": np.float32(1 / 127.5),
        "offset": np.float32(offset),
        "filters": random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "gamma": np.array([1, 2, 0.5, 3], np.float32),
        "beta": np.array([0, 0.1, -0.2, 0.3], np.float32),
        "mean": np.array([0.1, 0, 0.2, -0.1], np.float32),
        "variance": np.array([1, 2, 0.5, 4], np.float32),
        "factor": np.array([1, 2, 0.5, 3], np.float32).reshape(1, 4, 1, 1),
        "shift": np.array([0, 0.1, -0.2, 0.3], np.float32).reshape(1, 4, 1, 1),
        "dense": random.normal(0, 0.02, (4096, 10)).astype(np.float32),
    }
    normalise = {
        "": [],
        "BatchNormalization": [
            helper.make_node(
                "BatchNormalization", ["raw", "gamma", "beta", "mean", "variance"], ["filtered"],
                "norm",
            )
        ],
        "Mul": [
            helper.make_node("Mul", ["raw", "factor"], ["multiplied"], "multiply"),
            helper.make_node("Add", ["multiplied", "shift"], ["filtered"], "shift"),
        ],
    }[normalised]  # fmt: skip
    used = {name for node in normalise for name in node.input}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["cast"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"], "mul"),
            helper.make_node("Add", ["scaled", "offset"], ["moved"], "add"),
            helper.make_node("Transpose", ["moved"], ["nchw"], "transpose", perm=[0, 3, 1, 2]),
            helper.make_node(
                "Conv", ["nchw", "filters"], ["raw" if normalised else "filtered"], "conv",
                pads=[1, 1, 1, 1],
            ),
            *normalise,
            helper.make_node("Flatten", ["filtered"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "dense"], ["logits"], "dense"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax"),
        ],
        "small",
        [value("image", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [value("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in constants.items()
            if name in ("scale", "offset", "filters", "dense") or name in used
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("normalised", ["BatchNormalization", "Mul"])
def test_batch_normalisation_that_is_left_is_folded(normalised: str, dataset: Dataset) -> None:
    graph = small_convolution(-1.0, normalised=normalised)
    quantized = quantize_int8(graph, dataset.train.images)
    assert not {"BatchNormalization", "Mul"} & set(operators(quantized))
    images = dataset.test.images
    np.testing.assert_allclose(answers(quantized, images), answers(graph, images), atol=0.1)


def test_the_int8_graph_keeps_the_contract(residual: onnx.ModelProto, dataset: Dataset) -> None:
    quantized = quantize_int8(residual, dataset.train.images)
    onnx.checker.check_model(quantized, full_check=True)
    assert contract(quantized) == CONTRACT
    images = dataset.test.images
    whole = answers(quantized, images)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(whole, answers(residual, images), atol=0.1)
    for size in (1, 3, 32):
        np.testing.assert_allclose(answers(quantized, images[:size]), whole[:size], atol=1e-6)


def test_everything_but_the_end_runs_in_integers(
    residual: onnx.ModelProto, dataset: Dataset, tmp_path: Path
) -> None:
    runs = what_runs(quantize_int8(residual, dataset.train.images), tmp_path)
    assert runs.count("QLinearConv") == 3
    assert "QLinearAdd" in runs
    assert not {"Conv", "FusedConv", "Relu", "Cast", "Mul", "QuantizeLinear"} & set(runs)
    assert runs[-2:] in (["Gemm", "Softmax"], ["FusedGemm", "Softmax"])
    assert runs.count("DequantizeLinear") == 1


def test_the_same_input_gives_the_same_bytes(residual: onnx.ModelProto, dataset: Dataset) -> None:
    first, second = (
        quantize_int8(residual, dataset.train.images).SerializeToString() for _ in range(2)
    )
    assert first == second
    other = quantize_int8(residual, dataset.train.images[:10])
    assert other.SerializeToString() != first  # the calibration images count


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
    Predictor(found.onnx, CPU).check_golden(made.golden)
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


def test_a_float16_graph_is_in_order(residual: onnx.ModelProto) -> None:
    known = {"image"}
    graph = convert_fp16(residual).graph
    known |= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        assert known.issuperset(node.input)
        known |= set(node.output)


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


def test_what_loses_too_much_is_refused_with_a_reason(
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
    assert refused.card.accuracy is None  # the test images were not looked at
    assert store.names() == ["outlier"]  # the one that was kept before is gone
    assert [path.name for path in store.folder("outlier_int8").iterdir()] == ["refused.json"]
    assert store.refused() == [refused]
    with pytest.raises(ModelNotFoundError, match=f"refused, for it loses {lost}"):
        store.load("outlier_int8")

    make_variant("outlier", "int8", store, dataset, VariantLimits(1.0, 0.0))
    assert store.names() == ["outlier", "outlier_int8"]
    assert store.refused() == []


def test_what_answers_otherwise_is_refused(outlier: tuple[ModelStore, Dataset]) -> None:
    store, dataset = outlier
    refused = make_variant("outlier", "int8", store, dataset, VariantLimits(accuracy_loss=1.0))
    assert isinstance(refused, RefusedVariant)
    assert "names the class that its source names for only" in refused.reason


def test_a_model_with_random_weights_is_not_held_to_its_answers(
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


def test_a_variant_is_not_made_of_a_variant(store: ModelStore, dataset: Dataset) -> None:
    make_variant("tiny", "fp16", store, dataset, LOOSE)
    assert sources(store) == ["tiny"]
    with pytest.raises(ExportError, match="a variant itself, of 'tiny'"):
        make_variant("tiny_fp16", "int8", store, dataset, LOOSE)


def test_other_images_than_it_was_trained_on_are_refused(
    store: ModelStore, synthetic: Dataset
) -> None:
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
    monkeypatch.setattr("export.command_line.load_dataset", lambda _: dataset)
    assert main(["--all", "--int8", "--fp16", "--models-dir", str(store.root)]) == 0
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
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, *place])
    capsys.readouterr()
    assert main(["missing", "--int8", *place]) == 1
    assert "error: missing_int8: no model 'missing'" in capsys.readouterr().err
