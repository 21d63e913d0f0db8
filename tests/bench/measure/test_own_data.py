"""Tests of measuring models of several data sets and image sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.rows.files import read_results
from bench.rows.kinds.accuracy import AccuracyMeasurement, RobustnessMeasurement
from bench.rows.packed import pack_classes, unpack_classes
from bench.rows.row import Row
from cifar10.commands.main import main
from cifar10.dataset import load_dataset
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from tests.conftest import add_model, linear_onnx

LABELS = ("bright", "dark", "grün")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three classes of 20 pictures each."""
    root = tmp_path / "colours"
    random = np.random.default_rng(0)
    for number, label in enumerate(LABELS * 20):
        path = root / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 40, 3), np.uint8)).save(path)
    return root


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Return a store of a model of tiles and one of the three classes."""
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "models"))
    add_model(tmp_path / "models", "tiny_a", linear_onnx(0))
    add_model(tmp_path / "models", "colours", linear_onnx(1, (40, 48, 3), 3), labels=LABELS)
    return ModelStore(tmp_path / "models")


def rows_of(results: Path, kind: type) -> list[Row]:
    """Return the rows of this kind."""
    (here,) = read_results(results)
    return [row for row in here.rows if isinstance(row.measurement, kind)]


def test_only_models_of_the_data_given_are_measured(store, folder, tmp_path, capsys) -> None:
    arguments = ["--data", str(folder), "--results", str(tmp_path / "results")]
    assert main(["bench", "run", "--quick", *arguments]) == 0
    assert "tiny_a is skipped" in capsys.readouterr().err
    (row,) = rows_of(tmp_path / "results", AccuracyMeasurement)
    assert (row.model, row.dataset.name) == ("colours", "colours")
    test = load_dataset(str(folder), shape=(40, 48, 3)).test
    predictor = Predictor(store.load("colours").onnx, PredictorOptions(device="cpu"))
    predicted = predictor.predict(test.images).argmax(axis=1)
    assert row.measurement.classes.tolist() == predicted.tolist()
    assert row.measurement.top1.correct == (predicted == test.labels).sum()
    assert np.shape(row.measurement.confusion) == (3, 3)
    assert main(["bench", "robustness", "--images", "4", *arguments]) == 0
    robust = rows_of(tmp_path / "results", RobustnessMeasurement)
    assert {(one.model, one.dataset.name) for one in robust} == {("colours", "colours")}


def test_each_model_is_measured_on_its_own_data(store, folder, tmp_path, monkeypatch) -> None:
    """Without ``--data``, a user's own data set is found in the cache."""
    fingerprint = load_dataset(str(folder), shape=(40, 48, 3)).record.fingerprint
    set_data(store, "colours", "colours", fingerprint)
    monkeypatch.setenv("CIFAR10_DATA", "synthetic")
    results = tmp_path / "results"
    assert main(["bench", "run", "--quick", "--results", str(results)]) == 0
    rows = rows_of(results, AccuracyMeasurement)
    assert {row.model: row.dataset.name for row in rows} == {
        "tiny_a": "cifar10",
        "colours": "colours",
    }


def test_a_table_for_each_data_set(store, folder, tmp_path, monkeypatch, capsys) -> None:
    fingerprint = load_dataset(str(folder), shape=(40, 48, 3)).record.fingerprint
    set_data(store, "colours", "colours", fingerprint)
    monkeypatch.setenv("CIFAR10_DATA", "synthetic")
    results = ["--results", str(tmp_path / "results")]
    main(["bench", "run", "--quick", *results])
    capsys.readouterr()
    assert main(["table", *results]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("Model") == 2
    assert {"data set cifar10", "data set colours"} <= set(shown.out.splitlines())


@pytest.mark.parametrize("most", [9, 255, 256, 999])
def test_class_ids_are_kept(most: int) -> None:
    ids = np.array([0, 1, most], np.int64)
    assert unpack_classes(pack_classes(ids)).tolist() == ids.tolist()


def set_data(store: ModelStore, name: str, dataset: str, fingerprint: str) -> None:
    """Write into a model's card which data set it was trained on."""
    path = store.folder(name) / "card.json"
    text = path.read_text().replace('"name": "own"', f'"name": "{dataset}"')
    path.write_text(text.replace("0" * 64, fingerprint))
