"""Tests of the resumable session, and of commands that read its rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.load.sent import Sent
from bench.measure.survey import RunOutcome
from bench.report.sections.speed import scenarios as scenarios_section
from bench.report.shown import Shown
from bench.report.tables import Table
from bench.rows.files import Recorder, read_results
from bench.rows.machine import Machine
from bench.rows.row import Row
from bench.rows.selection import select
from bench.scenarios.rules import RateTry, ScenarioPlan, Setting, describe
from bench.session.resume import Stage, new_session, newest_session, run_stages
from cifar10.commands.main import main
from cifar10.errors import BenchError
from tests.bench.conftest import accuracy, cost, failure, latency, load, text_of, with_extras

DIGESTS = {"a": "1" * 64, "b": "2" * 64}


class Session:
    """Session whose stages record a cost and a load row; the second can be interrupted or fail."""

    def __init__(self, results: Path, machine: Machine) -> None:
        self.results, self.machine = results, machine
        self.calls: list[tuple[str, list[str]]] = []
        self.interrupt = False
        self.id = new_session("all").run_id

    def rows(self) -> list[Row]:
        found = read_results(self.results)
        return [row for here in found for row in here.rows if row.run_id == self.id]

    def stage(self, name: str, kind: str) -> Stage:
        def measure(names) -> RunOutcome:
            self.calls.append((name, list(names)))
            outcome = RunOutcome()
            recorder = Recorder(self.results, self.machine, {}, run_id=self.id)
            for model in names:
                if self.interrupt and (name, model) == ("second", "b"):
                    outcome.interrupted = True
                    break
                recorder.add(model, DIGESTS[model], None, cost() if kind == "cost" else load())
                outcome.measured.append(model)
            return outcome

        return Stage(name, lambda rows: any(row.kind == kind for row in rows), measure)

    def run(self, digests=DIGESTS):
        stages = [self.stage("first", "cost"), self.stage("second", "load")]
        return run_stages(stages, digests, self.rows)


def test_an_interrupted_session_continues_where_it_stopped(
    tmp_path: Path, machine: Machine
) -> None:
    session = Session(tmp_path / "results", machine)
    session.interrupt = True
    assert session.run().interrupted
    assert session.calls == [("first", ["a", "b"]), ("second", ["a", "b"])]
    session.interrupt, session.calls = False, []
    outcome = session.run()
    assert session.calls == [("second", ["b"])]
    assert outcome.skipped == {"first": ["a", "b"], "second": ["a"]}
    session.calls = []
    session.run({"a": "9" * 64, "b": DIGESTS["b"]})  # exported again: measured again
    assert session.calls == [("first", ["a"]), ("second", ["a"])]


def test_resume_chooses_the_newest_matching_session(tmp_path: Path, machine: Machine) -> None:
    results = tmp_path / "results"
    rows = [
        Recorder(results, machine, {}, run_id=run_id, quick=quick).add("a", "1", None, cost())
        for run_id, quick in (("all-1", False), ("all-2", True), ("f00", False))
    ]
    assert newest_session("all", rows, quick=False).run_id == "all-1"
    assert newest_session("all", rows, quick=True).run_id == "all-2"
    with pytest.raises(BenchError, match="no session to resume"):
        newest_session("all", rows[2:], quick=False)


def scenario_rows(recorder: Recorder) -> None:
    due = np.arange(60) * 0.01
    sent = Sent(due, due, due + 0.002, np.full(60, 200))
    slowing = Sent(due, due, due + np.repeat([0.002, 0.004], [50, 10]), np.full(60, 200))
    setting = Setting("http", "cpu", ScenarioPlan())
    tries = (RateTry(100.0, 60, 0, 2.0, held=True), RateTry(200.0, 60, 1, 40.0, held=False))
    for measurement in (
        describe(setting, "single_stream", slowing, warm_up_queries=7),
        describe(
            setting, "server", sent, warm_up_queries=3, rate_per_s=100.0, tries=(*tries, tries[0])
        ),
    ):
        recorder.add("net", "d" * 64, None, measurement)


def test_the_report_shows_scenarios_and_marks_the_unstable(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.add("net", "d" * 64, None, cost())
    scenario_rows(recorder)
    (machine,) = read_results(tmp_path / "results")
    models = select(machine.rows)
    shown = Shown(machine, tuple(models))
    tables = [block for block in scenarios_section(shown) if isinstance(block, Table)]
    text = "\n".join(with_extras(table).markdown() for table in tables)
    lines = [line for line in text.splitlines() if line.startswith("| net")]
    single = next(line for line in lines if "SingleStream" in line)
    server_line = next(line for line in lines if "Server" in line)
    assert "| SingleStream | p90 | 4.00 ms (" in single
    assert "**unstable**, 100% apart" in single
    assert "| Server | rate with p99 ≤ 15 ms | 100 queries/s |" in server_line
    assert "stable, 0% apart" in server_line
    assert "100: 2.00 ms; ~~200: 40.0 ms, 1 failed~~; 100: 2.00 ms" in text
    assert text_of(scenarios_section, machine, []) == ""


def test_compare_show_and_ls_as_a_user_types_them(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, run, correct, p50 in (("a", "r1", 7_000, 10**6), ("b", "r2", 6_700, 13 * 10**5)):
        recorder = Recorder(tmp_path / name, machine, {}, run_id=run)
        recorder.add("net", name * 64, None, accuracy(correct))
        recorder.add("net", name * 64, None, latency(p50))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", a, a]) == 0
    assert "no regression" in capsys.readouterr().out
    assert main(["compare", a, b, "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["regression"] is True
    assert {one["what"].split(",")[0]: one["verdict"] for one in found["findings"]} == {
        "accuracy": "worse",
        "latency p50": "unclear",  # 30 % slower, but one run a side
    }
    assert main(["compare", a, b, "--tolerance", "50", "--accuracy-tolerance", "5"]) == 0
    assert main(["compare", b, a]) == 0  # better
    assert main(["compare", "r1", "r1", "--results", a]) == 0
    assert main(["compare", a, "nosuch"]) == 1
    assert "there are" in capsys.readouterr().err
    assert main(["show", "net", "--results", a]) == 0
    assert main(["show", "r1", "--results", a, "--json"]) == 0
    assert main(["ls", "--results", a, "--json"]) == 0
    assert main(["show", "nosuch", "--results", a]) == 1


def test_nothing_in_common_has_its_own_exit_code(tmp_path: Path, machine: Machine, capsys) -> None:
    for name, measurement in (("a", latency(10**6)), ("b", failure("load"))):
        Recorder(tmp_path / name, machine, {}).add("net", "d" * 64, None, measurement)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 5
    assert "nothing in common" in capsys.readouterr().out
