"""Tests of the trials: their list, and how they are run, judged and recorded."""

import sys
from pathlib import Path

import pytest

from bench.chaos import run as run_module
from bench.chaos.run import TRIALS, run_trials
from bench.chaos.trial import (
    ChaosPlan,
    Trial,
    TrialRun,
    TrialSkippedError,
    Verdict,
    growth,
    undesigned,
)
from bench.report.sections.chaos import chaos
from bench.report.shown import Shown
from bench.report.tables import Table
from bench.rows.files import Recorder, read_results, read_rows
from bench.rows.kinds.service import ChaosMeasurement
from bench.rows.selection import select
from cifar10.errors import BenchError
from tests.bench.conftest import with_extras

QUICK = ChaosPlan(
    workers=2,
    kills=1,
    reloads=1,
    inputs=140,
    sent_inputs=140,
    soak_seconds=2,
    large_images=1,
    large_rounds=1,
    attack_seconds=1,
    attack_rounds=1,
    settle_seconds=1,
    short=True,
)


def test_every_trial_has_what_the_report_and_the_command_line_show() -> None:
    assert list(TRIALS)[-1] == "soak"  # the longest
    for name, trial in TRIALS.items():
        assert trial.name == name
        assert trial.title
        assert trial.promise
    assert len({trial.title for trial in TRIALS.values()}) == len(TRIALS)
    asked_for = {
        "slow_readers", "pipelining", "trailers", "upgrades", "scan_bombs", "mpo",
        "structure_bombs", "full_disk", "logs", "second_server",
    }  # fmt: skip
    assert asked_for < TRIALS.keys()


def test_an_unknown_trial_is_an_error_that_names_it(tiny_store: Path, recorder: Recorder) -> None:
    with pytest.raises(BenchError, match="no trial 'flood'; there are: kill"):
        run_trials(tiny_store, "tiny_a", ["flood"], recorder, QUICK)


def fake_trial(name: str, verdict: Verdict | Exception) -> Trial:
    async def run(run: TrialRun) -> Verdict:
        assert (run.store / run.model).is_dir()
        if isinstance(verdict, Exception):
            raise verdict
        run.statuses.update({200: 3, 0: 1})
        return verdict

    return Trial(name, f"The trial {name}", "it holds", run, starts_server=True)


def test_verdicts_become_rows_and_a_failing_trial_does_not_stop_the_others(
    tiny_store: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    fakes = (
        fake_trial("good", Verdict({"times": 2}, [], {"raw: 200": 4})),
        fake_trial("bad", Verdict({}, ["one part", "another"])),
        fake_trial("skipped", TrialSkippedError("it takes root")),
        fake_trial("failed", RuntimeError("no server")),
        fake_trial("last", Verdict({}, [], promise="less was done")),
    )
    monkeypatch.setattr(run_module, "TRIALS", {fake.name: fake for fake in fakes})
    outcome = run_trials(tiny_store, "tiny_a", [], recorder, QUICK)
    assert outcome.measured == ["good", "bad", "last"]
    assert outcome.failed == {
        "bad": "did not hold: one part; another",
        "failed": "failed at chaos: RuntimeError: no server",
    }
    assert "the trial skipped was skipped: it takes root" in caplog.text
    rows = [row.measurement for row in read_rows(recorder.folder / "chaos.jsonl")]
    found = {row.trial: row for row in rows if isinstance(row, ChaosMeasurement)}
    assert [row.holds for row in found.values()] == [True, False, True]
    assert found["good"].status_counts == {"no answer": 1, "200": 3}
    assert found["good"].outcomes == {"raw: 200": 4}
    assert found["bad"].broken == ("one part", "another")
    assert found["last"].promise == "less was done"
    (results,) = read_results(recorder.folder.parent)
    shown = Shown(results, tuple(select(results.rows)))
    (table,) = [block for block in chaos(shown) if isinstance(block, Table)]
    text = with_extras(table).markdown()
    assert "| The trial good | tiny_a | 2 |" in text
    assert "Outcomes: 200: 4" in text
    assert "**Did not hold:** one part; another" in text
    assert "**no**" in text


def test_growth_is_from_the_second_quarter_to_the_last() -> None:
    """Memory loaded once at the start is not growth; memory added by each input is."""

    def growth_of(*sizes: int) -> float:
        return growth([(float(at), size) for at, size in enumerate(sizes)])

    assert growth_of(100, 200, 300, 300, 300, 300, 300, 300) == 0
    assert growth_of(100, 110, 120, 130, 140, 150, 160, 170) == pytest.approx(0.32)
    assert growth_of(100) == 0
    assert growth_of(100, 150) == pytest.approx(0)


def test_only_503_and_504_are_failures_by_design() -> None:
    assert undesigned({200: 5, 400: 3, 503: 2, 504: 1}) == 0
    assert undesigned({200: 5, 500: 1, 502: 1, 0: 2}) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_trials_on_a_real_server_leave_rows(tiny_store: Path, recorder: Recorder) -> None:
    trials = ["kill", "reload", "upgrades", "fuzz", "soak"]
    outcome = run_trials(tiny_store, "tiny_a", trials, recorder, QUICK, device="cpu")
    assert outcome.measured == trials, outcome.failed
    rows = {
        row.measurement.trial: row.measurement
        for row in read_rows(recorder.folder / "chaos.jsonl")
        if isinstance(row.measurement, ChaosMeasurement)
    }
    fuzz = rows["fuzz"]
    assert sum(fuzz.outcomes.values()) == fuzz.figures["inputs"] == QUICK.inputs
    assert fuzz.figures["crashes"] == 0
    assert fuzz.figures["failures_over_sockets"] == 0
    assert len(fuzz.memory_bytes) > 2
    assert rows["reload"].status_counts.keys() == {"200"}
    assert rows["reload"].figures["wrong"] == 0
    killed = rows["kill"].figures
    assert killed["failed_requests"] <= killed["connections_of_the_killed"]
    assert rows["upgrades"].figures["other_requests"] > 0
    assert rows["upgrades"].figures["workers_lost"] == 0
