"""Workers, threads and batch size: each choice is a server in its turn, and the report says which
is best and how far the service's own choice is from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.load.bodies import encode_jpeg
from bench.report.build import prepare
from bench.report.sections.tuning import settings
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.service import SettingsMeasurement
from bench.serving.target import Target
from bench.serving.tuning import Choice, SettingsPlan, choices, measure_settings
from cifar10.errors import BenchError
from tests.bench.conftest import accuracy, add_all, cost, text_of
from tests.bench.scenarios.test_scenario_runs import FAKE

DIGEST = "a" * 64

ONE = SettingsMeasurement(
    device="cpu",
    cores=2,
    generator_shares=True,
    workers=2,
    threads=1,
    max_batch=32,
    connections=32,
    seconds=3.0,
    requests_per_second=(1_000.0, 1_100.0, 900.0),
    p50_ms=(8.0, 8.0, 9.0),
    p99_ms=(14.0, 15.0, 16.0),
    one_client_p50_ms=(1.0, 1.0, 1.0),
    resident_bytes=(200_000_000,) * 3,
)


def cores() -> list[Choice]:
    try:
        return choices("cpu")
    except BenchError as error:
        pytest.skip(str(error))


def test_with_one_server_core_the_generator_has_another() -> None:
    found = cores()
    alone = [choice for choice in found if choice.generator is not None]
    assert {len(choice.cores) for choice in alone} == {1}
    assert all(choice.generator not in choice.cores for choice in alone)
    shared = [choice for choice in found if choice.generator is None]
    assert len({choice.cores for choice in shared}) == 1
    assert len(set(found)) == len(found)
    # What the service takes by itself is among them: one worker a core, one thread, batches of 32.
    assert any((c.workers, c.threads, c.max_batch) == (len(c.cores), 1, 32) for c in shared)
    assert all(choice.generator is None for choice in choices("cuda"))


def test_each_choice_is_a_server_driven_in_every_round(
    tiny_store: Path, recorder: Recorder
) -> None:
    tried = cores()[:2]
    bodies = [encode_jpeg(np.full((32, 32, 3), value, np.uint8)) for value in (10, 200)]
    target = Target(tiny_store, device="cpu", command=FAKE)
    plan = SettingsPlan(2, 2, 0.1, 0.3, 0.1)
    outcome = measure_settings(target, "tiny_a", "a" * 64, bodies, recorder, tried=tried, plan=plan)
    assert sorted(outcome.measured) == sorted(choice.title for choice in tried)
    (results,) = read_results(recorder.folder.parent)
    rows = [row.measurement for row in results.rows]
    assert [(row.workers, row.threads, row.max_batch) for row in rows] == [
        (choice.workers, choice.threads, choice.max_batch) for choice in reversed(tried)
    ]  # the second and last round runs backwards
    for row in rows:
        assert len(row.requests_per_second) == len(row.p99_ms) == 2
        assert min(row.requests_per_second) > 0
        assert min(row.resident_bytes) > 10_000_000


def drive_made_up(monkeypatch: pytest.MonkeyPatch, happens: dict[int, BaseException]) -> list[str]:
    """Replace the servers: each run returns its number as its rate, or raises an error."""
    runs: list[str] = []

    def measure(target, name, bodies, choice, plan, rounds) -> None:
        runs.append(choice.title)
        if len(runs) in happens:
            raise happens[len(runs)]
        rounds.requests_per_second.append(float(len(runs)))
        for figure in (rounds.p50_ms, rounds.p99_ms, rounds.one_client_p50_ms):
            figure.append(1.0)
        rounds.resident_bytes.append(1)

    monkeypatch.setattr("bench.serving.tuning._measure", measure)
    return runs


ONE_WORKER, TWO_WORKERS = Choice((0,), 1, 1, 1, 32), Choice((0,), 1, 2, 1, 32)


def test_ctrl_c_keeps_the_rounds_that_are_done(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    drive_made_up(monkeypatch, {4: KeyboardInterrupt()})
    outcome = measure_settings(
        Target(Path()), "net", DIGEST, [], recorder,
        tried=(ONE_WORKER, TWO_WORKERS), plan=SettingsPlan(rounds=3),
    )  # fmt: skip
    assert outcome.interrupted
    (results,) = read_results(recorder.folder.parent)
    found = [(row.measurement.workers, row.measurement.requests_per_second) for row in results.rows]
    assert found == [(1, (1.0,)), (2, (2.0, 3.0))]


def test_a_choice_that_fails_is_a_row_that_names_it_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    runs = drive_made_up(monkeypatch, {1: BenchError("the server was not ready within 180 s")})
    outcome = measure_settings(
        Target(Path()), "net", DIGEST, [], recorder,
        tried=(ONE_WORKER, TWO_WORKERS), plan=SettingsPlan(rounds=3),
    )  # fmt: skip
    assert runs == [ONE_WORKER.title, *[TWO_WORKERS.title] * 3]
    assert list(outcome.failed) == [ONE_WORKER.title]
    (results,) = read_results(recorder.folder.parent)
    failed, measured = results.rows
    assert (failed.model, failed.kind, failed.key) == ("net", "failure", "settings")
    assert (
        failed.measurement.message == f"{ONE_WORKER.title}: the server was not ready within 180 s"
    )
    assert measured.measurement.requests_per_second == (2.0, 3.0, 4.0)


def test_the_report_names_the_best_and_the_share_of_the_default(recorder: Recorder) -> None:
    faster = replace(ONE, max_batch=128, requests_per_second=(2_000.0, 2_200.0, 1_800.0))
    alone = replace(ONE, cores=1, generator_shares=False, workers=1)
    add_all(recorder, "good", DIGEST, cost(), accuracy(9_000), ONE, faster, alone)
    results = recorder.folder.parent
    (shown,) = prepare(read_results(results), results)
    text = text_of(settings, shown.results, shown.models)
    assert "`good` on cpu, 2 cores, shared with the load generator: 32 connections" in text
    assert "Best: 2 workers, 1 thread, batches of at most 128." in text
    assert (
        "The service's default, 2 workers, 1 thread, batches of at most 32, reaches "
        "0.500 (0.500–0.500) of that rate." in text
    )
    assert "`good` on cpu, one core: " in text
    assert "| 2 | 1 | 128 | 2,000 (1,800–2,200) | 1.00 (1.00–1.00) |" in text
