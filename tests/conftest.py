"""Fixtures that several packages' tests share."""

import hashlib
import importlib.util
import io
import math
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from cifar10.accuracy import measure_accuracy
from cifar10.card import (
    SCHEMA_VERSION,
    AccuracyRecord,
    DatasetRecord,
    Golden,
    ModelCard,
    Parameters,
    Parity,
    TrainingCost,
    VariantRecord,
)
from cifar10.contract import ImageShape, input_tensor, output_tensor
from cifar10.dataset import Dataset, load_dataset
from cifar10.golden import golden_images
from cifar10.image_layout import Fit
from cifar10.labels import CLASS_COUNT, DATASET_NAME, IMAGE_SHAPE, LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.store import ModelStore

_STARTS_SERVERS = (
    "tests.test_readme",
    "tests.test_wheel",
    "tests.service.commands.test_serve_command",
)


needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed: pip install -c constraints.txt openvino",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start a server, a browser or a build, which ``make check`` leaves out."""
    for item in items:
        module = getattr(item, "module", None)
        if module is None:
            continue
        if (
            "Server" in vars(module)
            or "driver" in getattr(item, "fixturenames", ())
            or module.__name__ in _STARTS_SERVERS
        ):
            item.add_marker(pytest.mark.server)


@pytest.fixture(autouse=True)
def _isolated_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep tests from reading or writing the user's own cache, data, weights and models."""
    for name in ("DATA", "ENGINE", "MODELS", "RESULTS", "WEIGHTS"):
        monkeypatch.delenv(f"CIFAR10_{name}", raising=False)
    # `cifar10 train` sets these for its own process; a test's child must not inherit them.
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):
        if name not in os.environ:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def linear_onnx(seed: int, shape: ImageShape = IMAGE_SHAPE, classes: int = CLASS_COUNT) -> bytes:
    """Return a small real graph that follows the contract: softmax(pixels / 255 @ weights)."""
    values = math.prod(shape)
    weights = np.random.default_rng(seed).normal(0, 0.05, (values, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [
            numpy_helper.from_array(np.float32(1 / 255), "scale"),
            numpy_helper.from_array(np.array([-1, values], np.int64), "flat_shape"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    # onnx's own defaults are newer than ONNX Runtime reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def add_model(
    root: Path,
    name: str,
    onnx_bytes: bytes,
    *,
    variant_of: ModelCard | None = None,
    labels: tuple[str, ...] = LABELS,
    fit: Fit = "squash",
) -> ModelCard:
    """Store ``onnx_bytes`` under ``name`` with a card that is true of it, in place of what there
    was. With labels of its own it is a model of the data set ``own``."""
    predictor = Predictor(onnx_bytes, PredictorOptions(device="cpu"))
    answers = predictor.predict(golden_images(predictor.image_shape))
    dataset = DATASET_NAME if labels == LABELS else "own"
    predicted = np.arange(len(labels)).repeat(10)
    accuracy = measure_accuracy(predicted, predicted**2 % len(labels), labels)
    card = ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        recipe="linear",
        recipe_fields={"epochs": 1},
        seed=0,
        commit="unknown",
        created="2026-01-01T00:00:00+00:00",
        labels=labels,
        input=input_tensor(predictor.image_shape),
        output=output_tensor(predictor.class_count),
        preprocessing="cast to float32, divided by 255",
        precision="int8" if variant_of else "fp32",
        parameters=Parameters(30_720, 30_720, 0),
        macs=30_720,
        size_bytes=len(onnx_bytes),
        opset=18,
        sha256=hashlib.sha256(onnx_bytes).hexdigest(),
        parity=Parity("synthetic validation", 200, 0.0, 1.0),
        golden=Golden(tuple(tuple(row) for row in answers.tolist()), 1e-3),
        weights=None,
        dataset=DatasetRecord("synthetic", "synthetic", "0" * 64, 1800, 200, 500, dataset),
        accuracy=AccuracyRecord(accuracy, accuracy, accuracy, 0.0),
        training=TrainingCost(1, 1, 1.0, (1.0,), 0, "none", "none"),
        versions={"onnxruntime": "test"},
        variant=(
            VariantRecord(variant_of.name, variant_of.sha256, "these tests", 0, None)
            if variant_of
            else None
        ),
        fit=fit,
    )
    folder = ModelStore(root).folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx_bytes)
    (folder / "card.json").write_text(to_json(card))
    return card


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of the small real models ``tiny_a`` and ``tiny_b``, not to be changed."""
    root = tmp_path_factory.mktemp("store")
    for seed, name in enumerate(("tiny_a", "tiny_b")):
        add_model(root, name, linear_onnx(seed))
    return root


@pytest.fixture(scope="session")
def synthetic() -> Dataset:
    """Return the generated data set: 1,800 train, 200 validation, 500 test images."""
    return load_dataset("synthetic")


def encode(pixels: NDArray[np.uint8], kind: str = "PNG", **options: object) -> bytes:
    """Return pixels as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
