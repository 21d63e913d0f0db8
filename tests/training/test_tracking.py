"""Tests of what is recorded of a training and its export: with TensorBoard's own reader, and in a
file store with MLflow's own client."""

import logging
import shutil
import socket
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar10.card import read_training_record
from cifar10.commands.main import main
from cifar10.store import ModelStore
from cifar10.tracking import TAG, tracker
from export.tracked import record_export
from tests.conftest import add_model, linear_onnx
from tests.training.tiny import TINY, tiny_dataset
from training.commands import train as train_command
from training.curves import epochs_for
from training.history import EpochRow

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def epoch(number: int) -> EpochRow:
    return EpochRow(number, 1.0 / number, 0.5, 2.0, 0.25 * number, 1.0, 0.125, "all")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a new file store, which ``MLFLOW_TRACKING_URI`` names."""
    found = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found)
    for name in ("DISABLE_TELEMETRY", "ALLOW_FILE_STORE"):
        monkeypatch.setenv(f"MLFLOW_{name}", "true")
    return found


def runs(uri: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("cifar10")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def artifacts(uri: str, run: Run, folder: str | None = None) -> set[str]:
    found = MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id, folder)
    return {Path(one.path).name for one in found}


def test_a_training_and_its_export_are_one_run(uri, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train_command, "find_recipe", lambda name: TINY)
    monkeypatch.setattr(train_command, "read_dataset", lambda *_: tiny_dataset())
    store = ModelStore(tmp_path / "models")
    arguments = ["train", "tiny", "--models-dir", str(store.root)]
    curves = tmp_path / "curves"
    assert main([*arguments, "--tensorboard", str(curves)]) == 0
    record = read_training_record((store.folder("tiny") / "training.json").read_bytes())
    (run,) = runs(uri)
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert run.data.tags[TAG] == record.keras_sha256
    assert {
        "recipe": "tiny", "seed": "0", "phases.1.name": "second", "batch_size": "32",
        "dataset.variant": "synthetic",
    }.items() <= run.data.params.items()  # fmt: skip
    history = MlflowClient(tracking_uri=uri).get_metric_history(
        run.info.run_id, "validation_accuracy"
    )
    assert [one.step for one in history] == list(range(1, record.training.epochs + 1))
    assert record.accuracy is not None
    assert run.data.metrics["test_accuracy"] == record.accuracy.test.accuracy
    assert artifacts(uri, run) == {"training.json", "history.csv"}

    steps = {}
    for part in ("train", "validation"):
        events = EventAccumulator(str(curves / part), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            steps[part, tag] = [event.step for event in events.Tensors(tag)]
    assert {tag for _, tag in steps} == {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"}
    assert {tuple(one) for one in steps.values()} == {tuple(range(1, record.training.epochs + 1))}

    assert main(arguments) == 0  # is there already: no second run
    card = add_model(store.root, "tiny", linear_onnx(0))
    record_export(card, store)
    record_export(add_model(store.root, "tiny_int8", linear_onnx(1), variant_of=card), store)
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert {"tiny", "tiny_int8"} <= artifacts(uri, run)
    assert artifacts(uri, run, "tiny_int8") == {"model.onnx", "card.json"}
    assert run.data.metrics["int8.size_bytes"] == card.size_bytes


def test_an_export_without_a_recorded_training_is_a_run_with_its_curves(uri, tmp_path) -> None:
    card = add_model(tmp_path, "alone", linear_onnx(0))
    history = "epoch,loss,accuracy,phase\n1,2.0,0.1,all\n2,1.5,0.2,all\n"
    (tmp_path / "alone" / "history.csv").write_text(history)
    for _ in range(2):
        record_export(card, ModelStore(tmp_path))
    (run,) = runs(uri)
    losses = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(1, 2.0), (2, 1.5)]


def test_without_the_variable_nothing_is_recorded(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracker("a", {}) is None


def test_a_failure_is_one_warning_and_the_training_goes_on(uri, tmp_path, caplog) -> None:
    run = tracker("a", {"seed": 0})
    assert run is not None
    with caplog.at_level(logging.WARNING), run:
        tell = epochs_for(run)
        tell(epoch(1))
        assert not caplog.records
        shutil.rmtree(tmp_path / "mlruns")
        for number in (2, 3):
            tell(epoch(number))
    (warning,) = caplog.records
    assert f"MLFLOW_TRACKING_URI={uri}) records nothing more of a" in warning.getMessage()


def test_a_server_that_is_away_is_given_up(uri, monkeypatch, caplog) -> None:
    with socket.socket() as taken:  # bound, so that nobody listens there
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        run = tracker("a", {})
        assert run is not None
        with caplog.at_level(logging.WARNING, "cifar10"), run:
            assert not run.open()
            epochs_for(run)(epoch(1))
    assert len([one for one in caplog.records if one.name == "cifar10.tracking"]) == 1


@pytest.mark.parametrize("package", ["mlflow", "tensorboard"])
def test_a_missing_extra_is_one_line(package, uri, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "tensorboard":
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["train", "simple_cnn", "--tensorboard", "curves"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs the Python package {package}" in line
    assert f"pip install -c constraints.txt -e '.[{package}]'" in line
