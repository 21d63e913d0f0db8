"""Tests of the scenarios as commands run them, on small real models and a small real server."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.measure.setup import Setup
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.speed import SCENARIOS, ScenarioMeasurement
from bench.rows.machine import Machine
from bench.rows.row import Row
from bench.scenarios.rules import ScenarioPlan
from bench.scenarios.run import scenarios_in_process, scenarios_over_http
from bench.serving.target import Target
from bench.statistics.rate_search import SearchPlan
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from tests.bench.conftest import open_on_cpu

FAKE = (sys.executable, "-m", "tests.bench.fake_server", "{port}")
PLAN = ScenarioPlan(
    seconds=0.2,
    warm_up_seconds=0.1,
    try_seconds=0.2,
    try_warm_up_seconds=0.1,
    search=SearchPlan(tries=2, confirmations=1),
)


@pytest.fixture
def recorder(tmp_path: Path, machine: Machine) -> Recorder:
    return Recorder(tmp_path / "results", machine, {})


@pytest.fixture
def setup(tiny_store: Path, synthetic: Dataset, recorder: Recorder) -> Setup:
    return Setup(ModelStore(tiny_store), synthetic, recorder, open_on_cpu)


def rows(tmp_path: Path) -> list[Row]:
    (found,) = read_results(tmp_path / "results")
    return list(found.rows)


def test_all_four_scenarios_run_against_a_server(
    tiny_store: Path, setup: Setup, tmp_path: Path
) -> None:
    target = Target(tiny_store, device="cpu", command=FAKE)
    outcome = scenarios_over_http(setup, target, ["tiny_a"], PLAN)
    assert (outcome.measured, outcome.failed) == (["tiny_a"], {})
    found = [row.measurement for row in rows(tmp_path)]
    assert all(isinstance(measurement, ScenarioMeasurement) for measurement in found)
    assert tuple(measurement.scenario for measurement in found) == SCENARIOS
    assert all(measurement.queries > 0 for measurement in found)


def test_a_server_killed_in_the_middle_leaves_the_earlier_rows(
    tiny_store: Path, setup: Setup, tmp_path: Path
) -> None:
    """A server that dies after some requests leaves complete rows and a failure row with its
    last output."""
    target = Target(tiny_store, device="cpu", command=(*FAKE, "--die-after", "500"))
    plan = ScenarioPlan(seconds=5, warm_up_seconds=0.1)
    outcome = scenarios_over_http(setup, target, ["tiny_a"], plan)
    assert "stopped by itself (exit code 9)" in outcome.failed["tiny_a"]
    *_, failure = rows(tmp_path)
    assert (failure.kind, failure.key) == ("failure", "scenario")


def test_ctrl_c_keeps_the_scenarios_that_are_done(
    tiny_store: Path, setup: Setup, tmp_path: Path
) -> None:
    class Interrupting(Predictor):
        def predict(self, images: np.ndarray) -> np.ndarray:
            if len(images) == 8:
                raise KeyboardInterrupt
            return super().predict(images)

    interrupting = replace(
        setup, open_model=lambda stored: Interrupting(stored.onnx, PredictorOptions(device="cpu"))
    )
    outcome = scenarios_in_process(interrupting, ["tiny_a", "tiny_b"], PLAN)
    assert outcome.interrupted
    assert [row.key.split()[0] for row in rows(tmp_path)] == ["single_stream"]


def test_a_missing_model_is_a_row_and_the_other_is_measured(
    tiny_store: Path, setup: Setup, tmp_path: Path
) -> None:
    outcome = scenarios_in_process(setup, ["nosuch", "tiny_b"], PLAN)
    assert outcome.measured == ["tiny_b"]
    assert "no model 'nosuch'" in outcome.failed["nosuch"]
    found = [(row.model, row.kind) for row in rows(tmp_path)]
    assert found == [("nosuch", "failure")] + [("tiny_b", "scenario")] * 4


def test_a_full_disk_ends_the_run_and_says_so(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        message = "cannot write: No space left on device"
        raise BenchError(message)

    monkeypatch.setattr("bench.rows.files._append", full)
    with pytest.raises(BenchError, match="No space left"):
        scenarios_in_process(setup, ["tiny_a"], PLAN)
