"""Tests that an interrupted ``bulk`` or ``chaos`` continues where it stopped."""

from dataclasses import replace

import pytest

from bench.chaos.run import trials_in
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.service import BulkMeasurement, ChaosMeasurement
from bench.serving.bulk import measured_in
from bench.session.resume import new_session, newest_session
from cifar10.errors import BenchError
from tests.bench.conftest import failure

BULK = BulkMeasurement("cpu", 256, 2, 3.0, (1.0,), (1.0,), 32, (1.0,), (1.0,))
KILL = ChaosMeasurement("kill", 2, 1.0, {"200": 3}, {"kills": 1.0}, (), "none is lost", True)


def rows_of(recorder: Recorder):
    (here,) = read_results(recorder.folder.parent)
    return here.rows


def test_the_newest_session_of_the_command_is_resumed(recorder: Recorder, machine) -> None:
    def recorder_of(command: str, *, quick: bool = False) -> Recorder:
        folder = recorder.folder.parent
        return Recorder(folder, machine, {}, quick=quick, run_id=new_session(command).run_id)

    old, new, quick = recorder_of("bulk"), recorder_of("bulk"), recorder_of("bulk", quick=True)
    other = recorder_of("chaos")
    old.add("a", "1", None, BULK)
    new.add("b", "2", None, BULK)
    new.add("c", "3", None, failure("bulk"))
    quick.add("d", "4", None, BULK)
    other.add("a", "1", None, KILL)
    other.add("a", "1", None, replace(KILL, trial="soak", workers=4))
    other.add("b", "2", None, replace(KILL, trial="fuzz"))
    rows = rows_of(recorder)
    found = newest_session("bulk", rows, quick=False)
    assert found.run_id == new.run_id
    assert measured_in(found.rows) == {("b", "2")}  # what failed is tried again
    assert newest_session("bulk", rows, quick=True).run_id == quick.run_id
    trials = trials_in(newest_session("chaos", rows, quick=False).rows, "a", workers=2)
    assert trials == {"kill"}


def test_resuming_without_a_session_is_an_error(recorder: Recorder) -> None:
    recorder.add("a", "1", None, BULK)
    with pytest.raises(BenchError, match="start one: cifar10 bench bulk"):
        newest_session("bulk", rows_of(recorder), quick=False)
