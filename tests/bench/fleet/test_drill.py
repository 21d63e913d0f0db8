"""The drill on real replicas, and what its rows say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.fleet import run as drill
from bench.fleet.balancer import Balancer
from bench.fleet.network import DrillSkippedError, private_network
from bench.fleet.run import FleetPlan, measurement_of, run_fleet
from bench.fleet.scenarios import SCENARIOS, Fleet
from bench.load.sent import Sent
from bench.rows.files import Recorder, read_rows
from bench.rows.kinds.fleet import FleetMeasurement
from bench.serving.process import Server

__all__ = ["Server"]
"""Named so that this module is marked as one that starts servers."""


def sent(statuses: list[int]) -> Sent:
    due = np.arange(len(statuses), dtype=np.float64)
    return Sent(due, due, due + 0.01, np.array(statuses, np.int16))


def fleet(tmp_path: Path, **found: object) -> Fleet:
    return replace(Fleet([], Balancer(tmp_path)), **found)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "_balancer_version", lambda: "HAProxy 0")


def test_a_failed_request_breaks_a_rolling_restart(tmp_path: Path):
    found = measurement_of(
        SCENARIOS["restart"], fleet(tmp_path), FleetPlan(), sent([200, 0, 503, 200]), 0.5
    )
    assert (found.requests, found.failed) == (4, 2)
    assert found.longest_gap_s == 3.0
    assert found.broken == ("2 of 4 requests failed; 0 may",)


def test_what_a_frozen_replica_was_sent_may_fail(tmp_path: Path):
    state = fleet(tmp_path, in_flight=1, sent_to_faulty=1, out_of_rotation_s=[2.0])
    answers = sent([200, 0, 0, 200])
    assert not measurement_of(SCENARIOS["freeze"], state, FleetPlan(), answers, 0.5).broken
    late = replace(state, out_of_rotation_s=[3.5])
    (broken,) = measurement_of(SCENARIOS["freeze"], late, FleetPlan(), answers, 0.5).broken
    assert broken == "a replica was out of rotation after 3.5 s"


def test_without_the_programs_the_drill_is_skipped(
    recorder: Recorder, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = run_fleet(tiny_store, "tiny_a", [], recorder, FleetPlan.quick(10))
    assert not outcome.measured
    assert not outcome.failed


def test_a_killed_replica_costs_no_request(recorder: Recorder, tiny_store: Path):
    try:
        with private_network():
            pass
    except DrillSkippedError as reason:
        pytest.skip(str(reason))
    outcome = run_fleet(tiny_store, "tiny_a", ["kill"], recorder, FleetPlan.quick(40))
    assert outcome.measured == ["kill"], outcome.failed
    (row,) = read_rows(recorder.folder / "fleet.jsonl")
    found = row.measurement
    assert isinstance(found, FleetMeasurement)
    assert found.requests > 200
    assert found.failed == 0
    assert found.faults == len(found.back_s) == 1
