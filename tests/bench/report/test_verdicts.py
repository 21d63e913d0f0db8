"""Tests of the report's section on verdicts."""

from bench.report.build import prepare, render_report
from bench.report.efficiency import efficiency_records
from bench.report.page import render_html
from bench.rows.files import Recorder, read_results
from bench.rows.row import DatasetReference
from bench.rows.selection import select
from tests.bench.conftest import REFERENCE, accuracy, add_all, cost, latency, verdicts

PHOTOGRAPHS = DatasetReference("photographs-0a", "0a", "photographs")
STORE = {"net": "a" * 64, "photo": "b" * 64}


def fill(recorder: Recorder) -> None:
    add_all(recorder, "net", "a" * 64, cost(), accuracy(9_000), latency(400_000))
    add_all(recorder, "photo", "b" * 64, cost("photo"), latency(900_000))
    recorder.add("photo", "b" * 64, PHOTOGRAPHS, accuracy(9_500))
    recorder.add("net", "a" * 64, REFERENCE, verdicts())
    whole = verdicts("photo", dataset="photographs", images="all", chose_thresholds=50)
    recorder.add("photo", "b" * 64, PHOTOGRAPHS, whole)


def section(recorder: Recorder) -> str:
    results = recorder.folder.parent
    text = render_report(prepare(read_results(results), results, STORE), results, results)
    return text.partition("### How sure the answers are")[2].partition("###")[0]


def test_a_line_for_each_model_and_its_images(recorder: Recorder) -> None:
    fill(recorder)
    text = section(recorder)
    figures = "80 + 20 | 75.0 (93.4) | 12.5 (80.0) | 10.0 (36.4) | 2.5 (88.9) | 5.0 | 0.950 | 95.0"
    lines = [line for line in text.splitlines() if "80 + 20" in line]
    assert lines == [
        f"| net | cifar10-jpeg75, test | {figures} | 2.50 |",
        f"| photo | photographs, all † | {figures} | 2.50 |",
    ]
    assert "20 rows: [coverage.csv]" in text


def test_auto_with_another_small_model_is_left_out(recorder: Recorder) -> None:
    fill(recorder)
    for digest in ("a", "c"):
        row = verdicts("auto", small=("net", digest * 64), dataset="photographs")
        recorder.add("photo", "b" * 64, PHOTOGRAPHS, row)
    assert "| auto |" not in section(recorder)
    recorder.add("photo", "b" * 64, PHOTOGRAPHS, verdicts("auto", small=("net", "a" * 64)))
    assert section(recorder).count("| auto |") == 1


def test_the_page_has_the_coverage_curves(recorder: Recorder) -> None:
    fill(recorder)
    results = recorder.folder.parent
    page = render_html(prepare(read_results(results), results, STORE))
    assert "most confident answers, %" in page
    assert "net: of the surest 80 % 95.0 % are right" in page


def test_the_record_of_a_model_has_its_share_of_photographs(recorder: Recorder) -> None:
    """Not of images that chose its thresholds, nor of its own data set, nor of another model."""
    fill(recorder)
    recorder.add("net", "a" * 64, PHOTOGRAPHS, verdicts("net", dataset="photographs"))
    recorder.add("net", "a" * 64, REFERENCE, verdicts())
    recorder.add("net", "a" * 64, PHOTOGRAPHS, verdicts("auto", dataset="x", small=("x", "c" * 64)))
    (results,) = read_results(recorder.folder.parent)
    found = {one["model"]: one for one in efficiency_records(select(results.rows, STORE))}
    net = found["net"]
    assert (net["elsewhere_dataset"], net["elsewhere_images"]) == ("photographs", 80)
    assert net["elsewhere_accuracy"] == 69 / 80
    assert net["elsewhere_low"] < 69 / 80 < net["elsewhere_high"]
    assert (net["others_images"], net["others_sure"]) == (20, 1 / 20)
    assert "elsewhere_dataset" not in found["photo"]
