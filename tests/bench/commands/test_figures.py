"""Tests of displayed results: leaderboard, ``ls``, ``show``, summary of a measuring command."""

import json
from pathlib import Path

import pytest

from bench.commands.figures import BY_NAME, change, measured_now, result_table, shown
from bench.rows.files import Recorder, read_results
from bench.rows.machine import Machine
from bench.rows.row import Row
from bench.rows.selection import select
from cifar10.commands.main import main
from tests.bench.conftest import accuracy, cost, latency, load, throughput
from tests.conftest import add_model, linear_onnx

DIGEST = "d" * 64


@pytest.fixture
def results(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models: ``right`` is most accurate, ``quick`` fastest, ``bare`` has only a cost."""
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "results"
    for name, correct, p50 in (("right", 9_000, 2 * 10**6), ("quick", 7_000, 10**6)):
        recorder = Recorder(folder, machine, {"numpy": "2.4"}, run_id=f"run-{name}")
        for measurement in (cost(), accuracy(correct), latency(p50), throughput(3_000), load()):
            recorder.add(name, DIGEST, None, measurement)
    Recorder(folder, machine, {}, run_id="run-bare").add("bare", DIGEST, None, cost())
    return folder


def lines(capsys) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_leaderboard_is_sorted_by_accuracy_with_missing_values_last(results, capsys) -> None:
    assert main(["table", "--results", str(results)]) == 0
    header, *rows = lines(capsys)
    assert header[:4] == ["Model", "Accuracy,", "%", "Latency,"]
    assert [row[0] for row in rows] == ["right", "quick", "bare"]


def test_the_leaderboard_is_sorted_best_first_and_cut(results, capsys) -> None:
    assert main(["table", "--sort", "p50", "--top", "1", "--results", str(results)]) == 0
    _, row = lines(capsys)
    assert row[0] == "quick"
    backwards = ["--sort", "p50", "--reverse", "--top", "1"]
    assert main(["table", *backwards, "--results", str(results)]) == 0
    _, row = lines(capsys)
    assert row[0] == "right"


def test_the_leaderboard_as_json_has_every_figure(results, capsys) -> None:
    assert main(["table", "--json", "--results", str(results)]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["models"]
    assert (first["model"], first["accuracy"], first["p50"]) == ("right", 0.9, 2.0)
    assert first["in_store"] is False


def test_models_outside_the_store_are_marked(results, tmp_path: Path, capsys) -> None:
    assert main(["table", "--results", str(results)]) == 0
    shown_ = capsys.readouterr()
    assert "right *" in shown_.out
    assert "not in the model store" in shown_.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--sort", "p05"], "Did you mean p50"), (["--machine", "amd"], "no machine 'amd'")],
)
def test_an_unknown_figure_or_machine_is_one_line(arguments, said: str, results, capsys) -> None:
    assert main(["table", *arguments, "--results", str(results)]) == 1
    shown_ = capsys.readouterr().err
    assert said in shown_
    assert shown_.count("\n") == 1


def test_ls_is_one_line_a_model_and_machine(
    results: Path, machine: Machine, tmp_path: Path, capsys
) -> None:
    add_model(tmp_path / "models", "right", linear_onnx(0))
    assert main(["ls", "--results", str(results)]) == 0
    (heading, _, *rows) = lines(capsys)
    assert heading == ["machine", machine.name]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("bare", "1", "1", "no"),
        ("quick", "5", "5", "no"),
        ("right", "5", "5", "no"),  # the store has another file of that name
    ]


def test_ls_names_the_runs_that_compare_and_show_take(results: Path, capsys) -> None:
    assert main(["ls", "--runs", "--results", str(results)]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[2:4] for row in rows] == [
        ["run-right", "right"], ["run-quick", "quick"], ["run-bare", "bare"],
    ]  # fmt: skip
    assert main(["compare", "run-none", "run-bare", "--results", str(results)]) == 1
    assert "cifar10 ls --runs" in capsys.readouterr().err


def test_show_has_results_before_settings(results, capsys) -> None:
    assert main(["show", "right", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert text.index("Accuracy, %") < text.index("recipe ") < text.index("versions: numpy 2.4")
    assert "90.00 (89.40–90.57)" in text
    assert main(["show", "run-qu", "--results", str(results), "--rows"]) == 0
    text = capsys.readouterr().out
    assert "quick on " in text
    assert text.index("Images/s") < text.index("throughput")


def rows(results: Path) -> list[Row]:
    (found,) = read_results(results)
    return list(found.rows)


def test_a_run_ends_with_its_figures_and_their_change(results: Path, machine: Machine) -> None:
    again = Recorder(results, machine, {}, run_id="again")
    again.add("right", DIGEST, None, accuracy(9_100))
    again.add("right", DIGEST, None, latency(10**6))
    header, (line,) = result_table(measured_now(rows(results), "again"))
    assert header == ["Model", "Accuracy, %", "p50, ms", "p99, ms"]
    assert line[0] == "right"
    assert line[1] == "91.00 (90.42–91.55) +1.00"
    assert line[2] == "1.00 -50.0 %"


def test_a_first_run_has_no_change_and_a_quick_one_is_not_its_predecessor(
    results: Path, machine: Machine
) -> None:
    quick = Recorder(results, machine, {}, run_id="hasty", quick=True)
    quick.add("right", DIGEST, None, latency(10**6))
    ((now, before),) = measured_now(rows(results), "hasty")
    assert before is None
    assert result_table([(now, before)])[1][0][1] == "1.00"
    assert measured_now(rows(results), "nosuch") == []


def test_changes_of_shares_are_in_points_and_of_times_in_per_cent(results: Path) -> None:
    assert change(BY_NAME["accuracy"], 0.91, 0.9) == "+1.00"
    assert change(BY_NAME["p50"], 1.1, 1.0) == "+10.0 %"
    assert change(BY_NAME["p50"], 1.1, None) == ""
    bare = next(one for one in select(rows(results)) if one.model == "bare")
    assert shown(BY_NAME["p50"], bare) == "–"


def test_compare_folds_unmatched_rows_and_reports_an_empty_comparison(
    results: Path, tmp_path: Path, machine: Machine, capsys
) -> None:
    """Exit code 5: a gate that compared nothing must not look like one without regressions."""
    other = tmp_path / "other"
    recorder = Recorder(other, machine, {})
    for size in (1, 8, 32):
        recorder.add("elsewhere", DIGEST, None, latency(10**6, size))
    assert main(["compare", str(results), str(other)]) == 5
    lines_ = capsys.readouterr().out.splitlines()
    assert lines_ == [
        "11 measurements: only in A (--json lists them)",
        "3 measurements: only in B (--json lists them)",
        "nothing could be compared: the two sides have nothing in common",
    ]
    assert main(["compare", str(results), str(results)]) == 0
    assert main(["compare", str(results), str(other), "--json"]) == 5
    capsys.readouterr()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_leaderboard_has_whole_numbers_at_80_columns(
    is_terminal: bool, results: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if is_terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert main(["table", "--results", str(results)]) == 0
    shown_ = capsys.readouterr()
    assert max(map(len, shown_.out.splitlines())) <= 80
    assert "90.00 (89.40–90.57)" in shown_.out
    assert "…" not in shown_.out
    assert main(["table", "--all", "--results", str(results)]) == 0
    assert "MACs, M" in capsys.readouterr().out
    assert main(["table", "--csv", "--results", str(results)]) == 0
    header, *records = capsys.readouterr().out.splitlines()
    assert header.startswith("model,sha256,provider,dataset")
    assert records[0].startswith("right,")
