"""The load run and the end-to-end check, against a small real server."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bench.fingerprint import Machine
from bench.generator import LoadPlan, RawLoad
from bench.load import (
    ask_what_is_served,
    generator_was_limit,
    request_rate,
    response_times_ms,
    server_cpu_us,
    summarise,
)
from bench.measurements import LoadMeasurement, VerifyMeasurement
from bench.over_http import Target, load_models, verify_models
from bench.progress import silent
from bench.results import Recorder, Row, read_results
from bench.run import RunOutcome
from bench.server import Server
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore, StoredModel

FAKE = (sys.executable, "-m", "tests.bench.fake_server", "{port}")
SHORT = LoadPlan(users=2, seconds=4, warm_up_seconds=1)
"""Long enough that a busy machine still gets requests in after the warm-up."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def recorder(results: Path, machine: Machine) -> Recorder:
    return Recorder(results, machine, {"python": "3"})


def rows(results: Path, kind: str) -> list[Row]:
    (found,) = read_results(results)
    return [row for row in found.rows if row.kind == kind]


def run_load(
    store: Path, dataset: Dataset, recorder: Recorder, *extra: str, plan: LoadPlan = SHORT
) -> RunOutcome:
    target = Target(store, device="cpu", command=(*FAKE, *extra))
    return load_models(target, ["tiny_a"], dataset, recorder, plan, silent)


def test_load_records_every_request_of_the_measured_time(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    outcome = run_load(tiny_store, synthetic, recorder)
    assert (outcome.measured, outcome.failed) == (["tiny_a"], {})
    (row,) = rows(results, "load")
    found = row.measurement
    assert isinstance(found, LoadMeasurement)
    assert row.digest == ModelStore(tiny_store).card("tiny_a").sha256
    assert row.dataset is not None
    assert row.dataset.variant == "synthetic"
    assert (found.users, found.device) == (2, "cpu")
    assert set(found.status_counts) == {"200"}
    assert found.warm_up_requests > 0
    assert response_times_ms(found).size == found.status_counts["200"]
    assert found.generator_cpu_share > 0
    assert found.server_requests == found.warm_up_requests + found.status_counts["200"]
    cpu_us = server_cpu_us(found)
    assert cpu_us is not None
    assert cpu_us > 0


def test_a_server_that_dies_in_the_middle_is_a_clear_error_and_a_row(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    run_load(tiny_store, synthetic, recorder)
    before = rows(results, "load")
    long = LoadPlan(users=2, seconds=60, warm_up_seconds=1)
    outcome = run_load(tiny_store, synthetic, recorder, "--die-after", "100", plan=long)
    assert "stopped by itself (exit code 9)" in outcome.failed["tiny_a"]
    assert "fake server: planned death" in outcome.failed["tiny_a"]
    assert rows(results, "load") == before
    (failure,) = rows(results, "failure")
    assert failure.key == "load"
    assert failure.measurement.message == "the server stopped by itself (exit code 9)"
    assert failure.digest == before[0].digest


def test_a_server_that_refuses_everything(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    outcome = run_load(tiny_store, synthetic, recorder, "--status", "503")
    assert "answered 503" in outcome.failed["tiny_a"]
    assert len(rows(results, "failure")) == 1


def test_a_server_that_cannot_start_says_why(tiny_store: Path) -> None:
    broken = Server(tiny_store, command=(sys.executable, "-c", "raise SystemExit('no such port')"))
    with (
        pytest.raises(BenchError, match=r"exit code 1\)\nIts last output:\n.*no such port"),
        broken,
    ):
        pass


def test_a_server_that_is_never_ready_is_not_waited_for_for_ever(tiny_store: Path) -> None:
    silent_server = Server(
        tiny_store,
        command=(sys.executable, "-c", "import signal; signal.pause()"),
        start_timeout_seconds=0.2,
    )
    with (
        pytest.raises(BenchError, match=r"not ready within 0.2 s\nIt printed nothing"),
        silent_server,
    ):
        pass


def test_nobody_at_the_url(synthetic: Dataset) -> None:
    with pytest.raises(BenchError, match="Is the server running"):
        ask_what_is_served("http://127.0.0.1:9", synthetic.test.images[0], None)


def open_model(stored: StoredModel) -> Predictor:
    return Predictor(stored.onnx, PredictorOptions(device="cpu"))


def test_verify_an_honest_server_at_a_url(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    with Server(tiny_store, load=["tiny_b"], command=FAKE) as server:
        target = Target(tiny_store, url=server.url + "/")
        outcome = verify_models(target, [None], synthetic, recorder, open_model, silent)
    assert (outcome.measured, outcome.failed) == (["tiny_b"], {})
    (row,) = rows(results, "verify")
    found = row.measurement
    assert isinstance(found, VerifyMeasurement)
    assert found.images == found.answered == found.same_top1 == 500
    assert found.server_correct == found.in_process_correct
    assert found.differing == ()


def test_verify_finds_every_wrong_answer(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    target = Target(tiny_store, command=(*FAKE, "--wrong-every", "50"))
    outcome = verify_models(target, ["tiny_a"], synthetic, recorder, open_model, silent)
    assert "does not hold" in outcome.failed["tiny_a"]
    (row,) = rows(results, "verify")
    assert isinstance(row.measurement, VerifyMeasurement)
    assert row.measurement.same_top1 == 490
    assert len(row.measurement.differing) == 10


def test_verify_a_server_that_dies(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder, results: Path
) -> None:
    target = Target(tiny_store, command=(*FAKE, "--die-after", "100"))
    outcome = verify_models(target, ["tiny_a"], synthetic, recorder, open_model, silent)
    assert "the server stopped answering" in outcome.failed["tiny_a"]
    assert [row.key for row in rows(results, "failure")] == ["verify"]


def raw(cpu_s: float = 0.5, status: tuple[int, ...] = (200, 200, 200, 500, 200, 0)) -> RawLoad:
    """Six requests, one second apart, of 10, 20 … ms."""
    return RawLoad(
        start_s=100.0 + np.arange(6),
        response_ms=10.0 * np.arange(1, 7),
        status=np.array(status, np.int16),
        cpu_s=cpu_s,
        wall_s=1.0,
        interrupted=False,
    )


def test_the_warm_up_is_dropped_and_the_rest_is_counted_exactly() -> None:
    plan = LoadPlan(users=1, seconds=4, warm_up_seconds=1)
    found = summarise(raw(), plan, device="cpu", server_cpu_seconds=0.01)
    assert found.warm_up_requests == 1
    assert found.status_counts == {"200": 3, "500": 1, "no answer": 1}
    assert response_times_ms(found).tolist() == [20, 30, 50]
    assert found.seconds == 4.06
    assert found.requests_per_second == (1, 1, 0, 1)
    assert request_rate(found) == pytest.approx(3 / 4.06)
    assert server_cpu_us(found) == pytest.approx(0.01 * 1e6 / 5)


@pytest.mark.parametrize(("share", "limited"), [(0.9, False), (0.91, True)])
def test_a_busy_generator_is_told(share: float, limited: bool) -> None:
    found = summarise(raw(cpu_s=share), SHORT, device="cpu", server_cpu_seconds=None)
    assert generator_was_limit(found) is limited
    assert server_cpu_us(found) is None


def test_nothing_succeeded() -> None:
    with pytest.raises(BenchError, match=r"no request succeeded.*'500': 5"):
        summarise(raw(status=(200, *[500] * 5)), SHORT, device="cpu", server_cpu_seconds=None)
