"""Tests of the commands as a user types them, on small real models."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.measure.accuracy import predict_classes
from bench.measure.in_process import measure_models
from bench.measure.latency import LatencyPlan
from bench.measure.setup import Setup
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.accuracy import AccuracyMeasurement
from bench.rows.kinds.speed import LatencyMeasurement
from bench.rows.row import Row
from cifar10.commands.main import main
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore, StoredModel


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tiny_store: Path, results: Path):
    """Return a function that runs a command on the tiny store, with short plans."""
    monkeypatch.setenv("CIFAR10_MODELS", str(tiny_store))
    monkeypatch.setenv("COLUMNS", "200")
    plan = LatencyPlan(batch_sizes=(1, 8), rounds=2, warm_up_calls=1, block_calls=5)
    monkeypatch.setattr("bench.commands.run.QUICK_PLAN", plan)
    monkeypatch.setattr("bench.commands.run.LatencyPlan", lambda threads: plan)

    def run(*arguments: str) -> int:
        command, *rest = arguments
        where = [] if command in ("report", "ls") else ["bench"]
        return main([*where, command, "--results", str(results), *rest])

    return run


def rows(results: Path) -> list[Row]:
    (found,) = read_results(results)
    return list(found.rows)


def test_run_report_check_ls(
    bench, results: Path, tmp_path: Path, synthetic: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("run", "--data", "synthetic", "--device", "cpu") == 0
    found = rows(results)
    assert sorted({(row.model, row.kind) for row in found}) == sorted(
        (model, kind)
        for model in ("tiny_a", "tiny_b")
        for kind in ("accuracy", "cost", "latency", "throughput", "training")
    )
    accuracy = next(row.measurement for row in found if row.kind == "accuracy")
    assert isinstance(accuracy, AccuracyMeasurement)
    assert accuracy.top1.count == 500
    assert accuracy.card_accuracy is None  # its card is of other images
    confusion = np.array(accuracy.confusion)
    assert confusion.sum(axis=1).tolist() == np.bincount(synthetic.test.labels).tolist()
    assert np.trace(confusion) == accuracy.top1.correct

    output = str(tmp_path)
    assert bench("report", "--check", "--output", output) == 1
    assert bench("report", "--output", output) == 0
    assert bench("report", "--check", "--output", output) == 0
    capsys.readouterr()
    assert bench("ls") == 0
    listed = capsys.readouterr().out
    assert "tiny_a" in listed
    assert "tiny_b" in listed


def test_quick_rows_are_marked(bench, results: Path) -> None:
    arguments = ("run", "--data", "synthetic", "--device", "cpu", "tiny_b", "--quick")
    assert bench(*arguments) == 0
    assert {row.model for row in rows(results)} == {"tiny_b"}
    assert all(row.quick for row in rows(results))


def test_a_damaged_model_is_a_row_and_the_other_is_measured(
    bench, results: Path, tmp_path: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "models"
    shutil.copytree(tiny_store, store)
    (store / "tiny_a" / "model.onnx").write_bytes(b"not a graph")
    monkeypatch.setenv("CIFAR10_MODELS", str(store))
    assert bench("run", "--data", "synthetic", "--device", "cpu") == 3
    failures = [row for row in rows(results) if row.kind == "failure"]
    assert [(row.model, row.key) for row in failures] == [("tiny_a", "open")]
    assert "SHA-256" in failures[0].measurement.message
    assert any(row.model == "tiny_b" and row.kind == "latency" for row in rows(results))


def test_a_missing_model_is_one_line(bench, results: Path, capsys) -> None:
    assert bench("run", "nosuch", "--data", "synthetic") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no model 'nosuch'")
    assert said.count("\n") == 1
    assert not results.exists()


def test_missing_data_models_or_results_are_one_line_errors(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert bench("run", "--data", str(tmp_path / "nothing")) == 1
    assert bench("ls") == 1
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "empty"))
    assert bench("load") == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all(line.startswith("error: ") for line in said)


def test_ctrl_c_in_the_latency_keeps_what_was_measured(
    tiny_store: Path, synthetic: Dataset, results: Path, recorder: Recorder
) -> None:
    """An interruption in the second round keeps the first."""
    calls = []

    class Interrupting(Predictor):
        def predict(self, images: np.ndarray) -> np.ndarray:
            if len(images) == 1:
                calls.append(1)
                if len(calls) == 10:
                    raise KeyboardInterrupt
            return super().predict(images)

    def open_model(stored: StoredModel) -> Predictor:
        return Interrupting(stored.onnx, PredictorOptions(device="cpu"))

    plan = LatencyPlan(
        batch_sizes=(1,), rounds=5, warm_up_calls=1, block_warm_up_calls=1, block_calls=5
    )
    setup = Setup(ModelStore(tiny_store), synthetic, recorder, open_model)
    outcome = measure_models(setup, ["tiny_a"], plan)
    assert outcome.interrupted
    (latency,) = [row.measurement for row in rows(results) if row.kind == "latency"]
    assert isinstance(latency, LatencyMeasurement)
    assert (latency.rounds, len(latency.samples_ns)) == (1, 5)


def test_a_model_that_fails_while_measured_is_a_row(
    tiny_store: Path, synthetic: Dataset, results: Path, recorder: Recorder
) -> None:
    class Failing(Predictor):
        def predict(self, images: np.ndarray) -> np.ndarray:
            if len(images) == 32:
                message = "batch too large"
                raise RuntimeError(message)
            return super().predict(images)

    def open_model(stored: StoredModel) -> Predictor:
        return Failing(stored.onnx, PredictorOptions(device="cpu"))

    setup = Setup(ModelStore(tiny_store), synthetic, recorder, open_model)
    plan = LatencyPlan(batch_sizes=(1, 32), rounds=1, block_calls=3)
    outcome = measure_models(setup, ["tiny_a"], plan)
    assert "batch too large" in outcome.failed["tiny_a"]
    kinds = [row.kind for row in rows(results)]
    assert kinds.count("failure") == 1
    assert "accuracy" in kinds


def test_accuracy_in_batches_is_accuracy_of_all(tiny_store: Path, synthetic: Dataset) -> None:
    stored = ModelStore(tiny_store).load("tiny_a")
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    images = synthetic.test.images[:301]
    assert (predict_classes(predictor, images) == predictor.predict(images).argmax(axis=1)).all()


def test_resources_are_measured_on_the_device_that_was_chosen(
    bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def probe(path: Path, device: str, threads: int) -> dict[str, object]:
        devices.append(device)
        message = "far enough"
        raise BenchError(message)

    monkeypatch.setattr("bench.measure.resources._probe", probe)
    assert bench("resources", "tiny_a", "--device", "cpu") == 3
    assert devices == ["cpu"]
