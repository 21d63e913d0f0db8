"""Tests of the main loop of every measuring command."""

from pathlib import Path

import pytest

from bench.measure.survey import RunOutcome, Survey, merged
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.service import PeerFailureMeasurement
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.row import Row
from cifar10.errors import BenchError
from cifar10.store import ModelStore
from tests.bench.conftest import cost, load


def rows_of(recorder: Recorder) -> list[Row]:
    return [row for here in read_results(recorder.folder.parent) for row in here.rows]


def test_a_failed_subject_is_a_row_and_the_others_are_measured(recorder: Recorder) -> None:
    with Survey(recorder) as survey:
        for name in ("a", "b", "c"):
            with survey.attempt(name, "bulk", digest=name * 64) as subject:
                if name == "b":
                    message = "wrong shape"
                    raise ValueError(message)
                subject.add(load())
    assert survey.outcome == RunOutcome(
        ["a", "c"], {"b": "failed at bulk: ValueError: wrong shape"}
    )
    found = [(row.model, row.digest[:1], row.kind) for row in rows_of(recorder)]
    assert found == [("a", "a", "load"), ("b", "b", "failure"), ("c", "c", "load")]


def test_ctrl_c_ends_quietly_and_keeps_what_was_recorded(recorder: Recorder) -> None:
    with Survey(recorder) as survey:
        for name in ("a", "b", "c"):
            with survey.attempt(name, "bulk") as subject:
                if name == "b":
                    raise KeyboardInterrupt
                subject.add(load())
    assert survey.outcome == RunOutcome(["a"], {}, interrupted=True)
    assert [row.kind for row in rows_of(recorder)] == ["load"]


def test_digest_and_model_are_known_at_a_later_attempt(
    recorder: Recorder, tiny_store: Path
) -> None:
    store = ModelStore(tiny_store)
    with Survey(recorder) as survey:
        with survey.attempt("tiny_a", "open") as subject:
            subject.load(store)
        with survey.attempt("tiny_a", "latency"):
            message = "out of memory"
            raise RuntimeError(message)
        with survey.attempt("nosuch", "open") as subject:
            subject.load(store)
    later, missing = rows_of(recorder)
    assert (later.digest, later.key) == (store.card("tiny_a").sha256, "latency")
    assert (missing.digest, missing.key) == ("", "open")
    assert survey.unfailed(["tiny_a", "tiny_b", "nosuch"]) == ["tiny_b"]
    assert survey.outcome.failed["nosuch"].startswith("failed at open: no model 'nosuch'")


def test_a_subject_that_is_no_model_has_its_own_title_and_failure_row(recorder: Recorder) -> None:
    def explain(error: Exception) -> PeerFailureMeasurement:
        return PeerFailureMeasurement("ray", "Ray Serve 2", type(error).__name__, str(error))

    with (
        Survey(recorder) as survey,
        survey.attempt("ray", "peers", model="net", digest="1" * 64, explain=explain),
    ):
        message = "no wheels"
        raise BenchError(message)
    (row,) = rows_of(recorder)
    assert (row.model, row.digest, row.kind) == ("net", "1" * 64, "peer_failure")
    assert survey.outcome.failed == {"ray": "failed at peers: no wheels"}


def test_a_row_that_cannot_be_written_ends_the_survey(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not the subject's failure and must not be recorded as one."""
    written = []

    def full_once(path: Path, value: object) -> None:
        written.append(path.name)
        if len(written) == 1:
            message = "cannot write: No space left on device"
            raise BenchError(message)

    monkeypatch.setattr("bench.rows.files._append", full_once)
    with (
        pytest.raises(BenchError, match="No space left"),
        Survey(recorder) as survey,
        survey.attempt("a", "bulk") as subject,
    ):
        subject.add(cost())
    assert written == ["cost.jsonl"]


def test_a_blamed_subject_is_both_measured_and_failed(recorder: Recorder) -> None:
    with Survey(recorder) as survey, survey.attempt("a", "verify") as subject:
        subject.add(load())
        subject.blame("the server answers differently")
    assert survey.outcome == RunOutcome(["a"], {"a": "the server answers differently"})
    assert not any(isinstance(row.measurement, FailureMeasurement) for row in rows_of(recorder))


def test_outcomes_are_merged() -> None:
    whole = merged([RunOutcome(["a", "b"]), RunOutcome(["a"], {"b": "failed"}, interrupted=True)])
    assert whole == RunOutcome(["a", "b"], {"b": "failed"}, interrupted=True)
