"""Tests of the verdict: per data set, with warnings, and what beats it once trained."""

from dataclasses import replace

from bench.report.build import prepare, render_readme_table, render_report
from bench.report.charts.pictures import front
from bench.report.efficiency import entries, tables_by_dataset
from bench.report.page import render_html
from bench.report.sections.accuracy import paired
from bench.report.sections.others import not_released
from bench.report.shown import Shown
from bench.report.verdict import better_if_trained, headline, verdicts, verified, warnings
from bench.rows.files import Recorder, read_results
from bench.rows.row import DatasetReference
from bench.rows.selection import fronts
from tests.bench.conftest import VERIFIED, accuracy, add_all, cost, latency, text_of


def reports(recorder: Recorder) -> list[Shown]:
    results = recorder.folder.parent
    return prepare(read_results(results), results)


def test_a_contradiction_of_the_card_or_the_server_is_a_warning(recorder: Recorder) -> None:
    add_all(recorder, "a", "a" * 64, cost(), replace(accuracy(7_000), card_accuracy=0.72),
            latency(400_000))  # fmt: skip
    differing = replace(VERIFIED, same_top1=9_000, server_correct=6_000)
    add_all(recorder, "b", "b" * 64, cost(), accuracy(6_997), differing)
    add_all(recorder, "c", "c" * 64, cost(), accuracy(6_806), VERIFIED)
    (shown,) = reports(recorder)
    said = " ".join(warnings(shown))
    assert "`a` does not reach the accuracy on its card**: 70.00 % measured, 72.00 %" in said
    assert "server of `b` differs**: 9,000 of 10,000" in said
    assert verified(shown) == ("Every test image gets the same class over HTTP as in process: `c`.")
    assert headline(verdicts(shown)) == "No released model measured here reaches 85 %"


def test_each_data_set_has_its_own_verdict_and_front(recorder: Recorder) -> None:
    """Accuracies of different images are never held against each other."""
    add_all(recorder, "a", "a" * 64, cost(), accuracy(8_900), latency(400_000))
    recorder.add("b", "b" * 64, None, cost(parameters=9, size=9_999_999, macs=99_999_999))
    recorder.add("b", "b" * 64, DatasetReference("photos-01234567", "0"), accuracy(9_600))
    recorder.add("b", "b" * 64, None, latency(9_000_000))
    (shown,) = reports(recorder)
    assert fronts(shown.models)["size"] == {0, 1}
    assert headline(verdicts(shown)) == "Ship `a` for cifar10 and `b` for photos"
    tables = tables_by_dataset(shown.subjects, shown.models)
    lines = {name: [row.result.model for row in table.rows] for name, table in tables.items()}
    assert lines == {"cifar10": ["a"], "photos": ["b"]}
    assert text_of(paired, shown.results, shown.models) == ""
    floors = {entry.result.model: entry.floor for entry in entries(shown.models)}
    assert floors == {"a": 0.85, "b": None}


def test_the_fastest_good_enough_model_is_shipped_and_the_best_is_named(
    recorder: Recorder,
) -> None:
    add_all(recorder, "weak", "a" * 64, cost(), accuracy(8_400), latency(100_000))
    add_all(recorder, "fast", "b" * 64, cost(), accuracy(8_900), latency(400_000))
    add_all(recorder, "best", "c" * 64, cost(), accuracy(9_300), latency(2_000_000))
    (shown,) = reports(recorder)
    (verdict,) = verdicts(shown)
    assert headline([verdict]) == "Ship `fast`"
    assert verdict.reason == (
        "The fastest released model of at least 85 %. `best` is right on 93.00 % and takes "
        "5.00 times as long."
    )


def test_released_models_of_another_copy_are_named_as_not_compared(recorder: Recorder) -> None:
    """A reader sees that a more accurate model was left out, and why."""
    add_all(recorder, "a", "a" * 64, cost(), accuracy(8_900), latency(400_000))
    add_all(recorder, "b", "b" * 64, cost(), accuracy(8_800), latency(500_000))
    recorder.add("c", "c" * 64, None, cost())
    recorder.add("c", "c" * 64, DatasetReference("cifar10", "0"), accuracy(9_300))
    recorder.add("c", "c" * 64, None, latency(300_000))
    (shown,) = reports(recorder)
    (verdict,) = verdicts(shown)
    assert headline([verdict]) == "Ship `a`"
    assert verdict.not_compared == (
        "Measured on other images, so not compared: `c` (93.00 % of cifar10)."
    )
    assert verdict.not_compared in render_report([shown], recorder.folder.parent, recorder.folder)
    assert "93.00 % of cifar10" in render_html([shown], "")
    panel = front(shown)
    assert panel is not None
    fronts_drawn = [line.points for line in panel.lines if line.step]
    assert fronts_drawn == [[(0.3, 93.0)], [(0.4, 89.0)]]


def test_the_best_recipe_that_is_not_released_is_named_below_the_verdict(
    recorder: Recorder,
) -> None:
    add_all(recorder, "ours", "a" * 64, cost(), accuracy(8_800), latency(400_000))
    for seed, digest in enumerate("bc"):
        price = replace(cost("better", size=9_000_000), seed=seed)
        add_all(recorder, f"better_{seed}", digest * 64, price, accuracy(9_200 + 20 * seed),
                latency(900_000))  # fmt: skip
    results = recorder.folder.parent
    found = prepare(read_results(results), results, {"ours": "a" * 64})
    (verdict,) = verdicts(found[0])
    assert headline([verdict]) == "Ship `ours`"
    assert better_if_trained(verdict, found) == (
        "More accurate, if you train it: `better`, 92.10 ± 0.14 (2 seeds) %, 0.900 ms on "
        "Test CPU 9000, 9.00 MB."
    )
    table = text_of(not_released, found[0].results, found[0].models)
    assert table.count("| `better_0` |") == 1
    assert "better_1" not in table


def test_a_released_model_is_for_what_is_between_its_neighbours(recorder: Recorder) -> None:
    for letter, right, nanoseconds in (
        ("a", 8_000, 100_000), ("b", 9_000, 400_000), ("c", 9_250, 2_000_000),
        ("d", 9_200, 2_500_000), ("e", 9_450, 5_000_000),
    ):  # fmt: skip
        small = replace(cost(letter), precision="int8")
        add_all(recorder, letter, letter * 64, small, accuracy(right), latency(nanoseconds))
    lines = render_readme_table(reports(recorder)).splitlines()
    uses = {line[3]: line.split(" | ")[1] for line in lines if line.startswith("| `")}
    assert uses == {
        "a": "speed matters more than accuracy",
        "b": "you have no special need: fast, small, accurate enough",
        "c": "`b` is not accurate enough and `e` too slow",
        "d": "–",
        "e": "accuracy matters most",
    }
