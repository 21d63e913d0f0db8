"""Tests of which machines and rows the report shows, and in which order."""

from dataclasses import replace
from pathlib import Path

from bench.report.build import (
    prepare,
    render_report,
)
from bench.report.efficiency import NOT_RELEASED, efficiency_csv
from bench.report.page import render_html
from bench.report.shown import Section
from bench.report.verdict import headline, pick_for_budgets, verdicts
from bench.rows.files import Recorder, read_results
from bench.rows.machine import Machine
from bench.rows.selection import select
from tests.bench.conftest import (
    BULK,
    CHAOS,
    SETTINGS,
    accuracy,
    add_all,
    cost,
    latency,
    peer,
)


def test_the_machine_with_most_models_comes_first(tmp_path: Path, machine: Machine) -> None:
    for cpu, models in (("a", ["one"]), ("b", ["one", "two"]), ("c", ["three"])):
        there = Recorder(tmp_path, replace(machine, cpu=cpu), {})
        for model in models:
            there.add(model, "a" * 64, None, latency(400_000))
    shown = [report.results.machine.cpu for report in prepare(read_results(tmp_path), tmp_path)]
    assert shown == ["b", "c", "a"]


def test_the_machine_of_the_released_files_comes_first(tmp_path: Path, machine: Machine) -> None:
    """More models on the other machine do not help: none of them is the file in the store."""
    for cpu, models in (("own", {"net": "a"}), ("other", {"net": "b", "more": "c", "most": "d"})):
        there = Recorder(tmp_path, replace(machine, cpu=cpu), {})
        for model, digest in models.items():
            add_all(there, model, digest * 64, cost(), accuracy(9_000), latency(400_000))
    shown = prepare(read_results(tmp_path), tmp_path, {"net": "a" * 64})
    assert [one.results.machine.cpu for one in shown] == ["own", "other"]
    own, other = (headline(verdicts(one)) for one in shown)
    assert own == "Ship `net`"
    assert other == "No released model has an accuracy and a latency on this machine"
    assert not any(pick.model for pick in pick_for_budgets(shown[1].models))
    assert shown[1].subjects == []
    assert efficiency_csv(shown[1].models).count(NOT_RELEASED) == 3
    assert NOT_RELEASED not in efficiency_csv(shown[0].models)


def test_rows_of_the_stores_file_count_and_come_first(tmp_path: Path, recorder: Recorder) -> None:
    add_all(recorder, "net", "a" * 64, cost(), accuracy(8_600), latency(400_000))
    add_all(recorder, "net", "b" * 64, cost(), accuracy(9_900), latency(100_000))  # newer
    add_all(recorder, "else", "c" * 64, cost("other"), accuracy(9_999), latency(100_000))
    (results,) = read_results(recorder.folder.parent)
    found = select(results.rows, {"net": "a" * 64})
    assert [(one.model, one.digest[0], one.released) for one in found] == [
        ("net", "a", True), ("else", "c", False),
    ]  # fmt: skip


def test_sections_show_only_rows_of_the_files_that_are_shown(recorder: Recorder) -> None:
    """Rows of an older file are left out of faults, settings, peers and bulk requests too."""
    for digest in "ab":
        add_all(
            recorder, "net", digest * 64, cost(), accuracy(9_000), replace(CHAOS, promise=digest),
            replace(SETTINGS, workers=ord(digest)), replace(BULK, images=ord(digest)),
            peer("other", server=f"Other {digest}"), peer("ours", role="ours"),
        )  # fmt: skip
    results = recorder.folder.parent
    text = render_report(
        prepare(read_results(results), results, {"net": "a" * 64}), results, results
    )
    text += render_html(prepare(read_results(results), results, {"net": "a" * 64}))
    for mark in ("| yes | a |", "| 97 | 2 | 32 |", "| net | 97 |", ">Other a<"):
        assert mark in text
        other = mark.replace("97", "98").replace("a |", "b |").replace("a<", "b<")
        assert other not in text


def test_two_sections_with_the_same_place_show_their_own_content(
    tmp_path: Path, recorder: Recorder
) -> None:
    recorder.add("net", "a" * 64, None, latency(400_000))
    results = recorder.folder.parent
    (shown,) = prepare(read_results(results), results)
    first, second = (Section(87, name, "", lambda _, text=name: [text]) for name in ("one", "two"))
    assert first.blocks(shown) == ["one"]
    assert second.blocks(shown) == ["two"]
