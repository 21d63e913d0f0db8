"""Tests of the gate's self-test: planted changes are real, and the report names them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.commands.choices import model_of
from bench.compare.findings import Comparison, Finding
from bench.compare.selftest import (
    BASELINE,
    LESS_ACCURATE,
    SLOWER,
    Bench,
    SensitivityPlan,
    as_trial,
    measure_sensitivity,
    rows_of,
    slowed,
    with_less_accuracy,
)
from bench.report.sections.selftest import sensitivity, told
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.session import SensitivityMeasurement, Trial
from bench.rows.machine import Machine
from bench.rows.selection import select
from bench.serving.target import Target
from cifar10.dataset import Dataset
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from service.choice import choose
from service.settings import Settings
from tests.bench.conftest import REFERENCE, cost, text_of

FAKE = (sys.executable, "-m", "tests.bench.fake_server", "{port}")


def trial(planted: str, *, regression: bool, unit: str = "ratio") -> Trial:
    return Trial("side", planted, 5, regression, "load, requests/s", unit, 1.2, 1.1, 1.3)


def measurement(*trials: Trial) -> SensitivityMeasurement:
    return SensitivityMeasurement("cpu", 3, 8, 6.0, 10.0, 0.5, 500.0, 100.0, 3.0, trials)


def test_the_planted_delay_is_cpu_time_of_every_image(tiny_store: Path) -> None:
    code = """
import sys, time
import numpy as np
from cifar10.predictor import Predictor, PredictorOptions
model = Predictor(open(sys.argv[1], "rb").read(), PredictorOptions(device="cpu"))
started = time.thread_time()
model.predict(np.zeros((4, 32, 32, 3), np.uint8))
print(time.thread_time() - started)
"""
    command = slowed((sys.executable, "-c", code, str(tiny_store / "tiny_a/model.onnx")), 20_000)
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    run = subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert float(run.stdout) >= 4 * 0.02


def test_less_accurate_model_loses_the_requested_points_and_gains_some_images() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 10, 10_000).astype(np.uint8)
    scores = generator.standard_normal((10_000, 10)).astype(np.float32)
    scores[np.arange(10_000), labels] += 2
    exponentials = np.exp(scores)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    worse = with_less_accuracy(probabilities, labels, 3.0)
    right = probabilities.argmax(axis=1) == labels
    right_now = worse.argmax(axis=1) == labels
    assert 100 * (right.mean() - right_now.mean()) == pytest.approx(3.0, abs=0.02)
    assert (right_now & ~right).sum() > 0
    np.testing.assert_allclose(worse.sum(axis=1), 1, rtol=1e-5)


def test_a_guessing_model_cannot_lose_accuracy() -> None:
    labels = (np.arange(1_000) % 10).astype(np.uint8)
    with pytest.raises(BenchError, match=r"at 10\.0% there are no 3 points"):
        with_less_accuracy(np.full((1_000, 10), 0.1, np.float32), labels, 3.0)


def test_every_side_is_run_in_every_round(
    tiny_store: Path, synthetic: Dataset, machine: Machine, tmp_path: Path
) -> None:
    bench = Bench(
        target=Target(tiny_store, device="cpu", command=FAKE),
        dataset=synthetic,
        open_model=lambda stored: Predictor(stored.onnx, PredictorOptions(device="cpu")),
        machine=machine,
        versions={},
        rows=tmp_path,
    )
    plan = SensitivityPlan(
        rounds=2, repeats=2, in_process_runs=1, users=2, seconds=0.5, lost_points=1.0
    )
    found = measure_sensitivity(bench, "tiny_a", plan)
    assert [tried.side for tried in found.trials] == ["repeat_1", "repeat_2", SLOWER, LESS_ACCURATE]
    assert found.planted_delay_us == pytest.approx(0.2 * found.server_cpu_us, abs=0.1)
    kinds = {row.kind for row in rows_of(bench, BASELINE)}
    assert {"load", "latency", "throughput", "accuracy"} <= kinds
    slow = [row.measurement for row in rows_of(bench, SLOWER)]
    assert [type(window) for window in slow] == [LoadMeasurement] * 2
    assert all(window.status_counts.keys() == {"200"} for window in slow)
    # two windows a side: no change of speed may be called real
    assert found.false_alarms == 0
    assert SLOWER in found.missed


def test_the_worst_finding_is_a_regression_before_a_large_change() -> None:
    large = Finding("m", "large", "ratio", 1.9, 0.9, 3.0, "unclear", "bootstrap", (3, 3))
    real = Finding("m", "real", "ratio", 1.2, 1.1, 1.3, "worse", "bootstrap", (3, 3))
    told_of = as_trial("side", "server", Comparison((large, real), (), (), ()))
    assert (told_of.worst, told_of.regression) == ("real", True)


@pytest.mark.parametrize(
    ("trials", "false_alarms", "missed"),
    [
        ((trial("nothing", regression=False), trial("server", regression=True)), 0, ()),
        ((trial("nothing", regression=True), trial("server", regression=True)), 1, ()),
        ((trial("nothing", regression=False), trial("accuracy", regression=False)), 0, ("side",)),
    ],
)
def test_holds_means_no_false_alarm_and_nothing_missed(
    trials: tuple[Trial, ...], false_alarms: int, missed: tuple[str, ...]
) -> None:
    found = measurement(*trials)
    assert (found.false_alarms, found.missed) == (false_alarms, missed)
    assert found.holds == (not false_alarms and not missed)


def test_the_report_shows_every_trial(recorder: Recorder, tmp_path: Path) -> None:
    found = measurement(
        trial("nothing", regression=False),
        trial("server", regression=True),
        trial("accuracy", regression=False, unit="points"),
    )
    recorder.add("simple_cnn", "d" * 64, None, cost())
    recorder.add("simple_cnn", "d" * 64, REFERENCE, found)
    (results,) = read_results(tmp_path / "results")
    text = text_of(sensitivity, results, select(results.rows))
    assert "| side | nothing | 5 | load, requests/s | +20.0 (+10.0 … +30.0) % | passes |" in text
    assert (
        "| side | 20% more CPU a request | 5 | load, requests/s | +20.0 (+10.0 … +30.0) % "
        "| regression |" in text
    )
    assert "+1.20 (+1.10 … +1.30) points | passes |" in text
    assert told(found) == [
        "0 false alarms in 1 repeats of an unchanged run.",
        "20% more CPU a request: reported.",
        "3.00 points less accuracy: NOT reported.",
    ]


def test_without_a_name_it_is_the_server_s_own_model_or_the_first(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(BenchError, match="there is no model"):
        model_of(store, None)
    steps = (
        ("wide", "wide"), ("deep", "deep"), ("compact", "compact"),
        ("compact_int8", "compact_int8"),
    )  # fmt: skip
    for name, expected in steps:  # on a CPU
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").touch()
        assert model_of(store, None, "cpu") == expected
    assert model_of(store, "wide", "cpu") == "wide"
    assert model_of(store, None, "cuda") == "compact"
    # What a server that is told nothing answers with.
    assert choose(Settings(device="cpu"), ModelStore(tmp_path)).default == "compact_int8"
