"""Tests that a training's records describe the saved model."""

import csv
import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
import pytest

import training.official
from cifar10.card import read_training_record
from cifar10.commands.main import main
from cifar10.dataset import Dataset, Split
from cifar10.errors import DatasetNotFoundError
from cifar10.store import ModelStore, file_sha256
from tests.training.tiny import TINY, tiny_dataset
from training.commands.options import prepare_keras
from training.official import download_official
from training.recipes.schema import Phase
from training.run import train

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def accuracy_of(model: keras.Model, split: Split) -> float:
    predicted = model.predict(split.images, verbose=0).argmax(axis=1)
    return float(np.mean(predicted == split.labels))


def test_the_best_epoch_is_kept_and_measured(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    # A learning rate so high that later epochs are worse than the best one.
    wild = dataclasses.replace(
        TINY, phases=(Phase(name="wild", epochs=12, learning_rate=2e-2, patience=2),)
    )
    record = train(wild, dataset, ModelStore(tmp_path), seed=3).record
    folder = tmp_path / "tiny"
    assert read_training_record((folder / "training.json").read_bytes()) == record
    assert file_sha256(folder / "model.keras") == record.keras_sha256
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    validation = [float(row["validation_accuracy"]) for row in history]
    best = record.training.best_epoch
    assert validation[best - 1] == max(validation)
    assert best < len(validation), "the recipe must get worse again for this test to mean anything"
    assert len(validation) == record.training.epochs == len(record.training.seconds_per_epoch)
    model = keras.saving.load_model(folder / "model.keras")
    for found, split in (
        (record.accuracy.train, dataset.train),
        (record.accuracy.validation, dataset.validation),
        (record.accuracy.test, dataset.test),
    ):
        assert found.accuracy == accuracy_of(model, split)
        assert found.count == len(split.labels)
        assert found.low <= found.accuracy <= found.high
    assert record.accuracy.validation.accuracy == pytest.approx(max(validation))
    gap = record.accuracy.train.accuracy - record.accuracy.test.accuracy
    assert record.accuracy.overfitting_gap == pytest.approx(gap)
    assert record.dataset == dataset.record
    assert record.training.hardware
    assert {"python", "keras", "numpy", "tensorflow"} <= record.versions.keys()


def test_the_test_set_chooses_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    """Training with other test images gives the same model."""
    dataset = tiny_dataset()
    other = dataclasses.replace(
        dataset, test=Split(255 - dataset.test.images, dataset.test.labels[::-1])
    )
    train(TINY, other, ModelStore(tmp_path), name="other")
    models = [
        keras.saving.load_model(folder / "model.keras").get_weights()
        for folder in (tmp_path / "other", uninterrupted)
    ]
    for ours, theirs in zip(*models, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_command_trains_the_smoke_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.setenv(name, "0")  # or the command sets it, and it would stay
    arguments = ["train", "simple_cnn", "--smoke", "--epochs", "1", "--data", "synthetic"]
    arguments += ["--models-dir", str(tmp_path)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "2,122,186 parameters, 1 epochs" in output
    assert "next: cifar10 export simple_cnn_smoke" in output
    assert [entry.name for entry in tmp_path.iterdir()] == ["simple_cnn_smoke"]
    record = read_training_record((tmp_path / "simple_cnn_smoke/training.json").read_bytes())
    assert (record.recipe, record.dataset.train_count) == ("simple_cnn", 1_000)
    assert main(arguments) == 0
    assert "already trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machine", "chosen", "expected"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_the_command_enables_onednn_by_default(
    monkeypatch: pytest.MonkeyPatch, machine: str, chosen: str | None, expected: str | None
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen or "")  # put back afterwards
    if chosen is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    prepare_keras()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected


def test_the_command_reports_errors_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "simple_cnn", "--data", "/nowhere/at/all"]) == 1
    assert main(["train", "no_such_recipe"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert "/nowhere/at/all" in lines[0]
    assert lines[1].startswith("error: no recipe 'no_such_recipe'; there are: simple_cnn")


def test_the_command_describes_the_dataset(
    capsys: pytest.CaptureFixture[str], synthetic: Dataset
) -> None:
    assert main(["data", "--data", "synthetic"]) == 0
    output = capsys.readouterr().out
    assert synthetic.record.fingerprint in output
    assert "1,800 train, 200 validation, 500 test" in output
    assert main(["list"]) == 0
    assert "2,122,186" in capsys.readouterr().out


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        reason = "URL fetch failure"
        raise Exception(reason)  # as Keras does

    monkeypatch.setattr(training.official.keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(DatasetNotFoundError, match=r"URL fetch failure.*--data PATH"):
        download_official()
