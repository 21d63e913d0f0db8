"""Tests of what is rendered from rows: golden strings, staleness, pictures."""

import ast
import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report.build import (
    TABLE_BEGIN,
    TABLE_END,
    prepare,
    render_json,
    stale_files,
    write_report,
)
from bench.report.efficiency import efficiency_csv, efficiency_table
from bench.report.formats import significant
from bench.report.sections import all_sections
from bench.report.sections.others import cost_only, failures
from bench.report.sections.speed import load as load_section
from bench.report.sections.study import study_table
from bench.report.shown import Shown
from bench.report.tables import MOST_ROWS, Table, words
from bench.report.verdict import verdicts
from bench.rows.files import Recorder, read_results
from bench.rows.machine import Machine
from bench.rows.row import Row
from bench.rows.selection import select
from bench.statistics.pareto import Candidate, pareto_front
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError
from cifar10.predictor import CUDA_PROVIDER
from tests.bench.conftest import (
    REFERENCE,
    SETTINGS,
    VERIFIED,
    accuracy,
    add_all,
    cost,
    failure,
    latency,
    load,
    peer,
    text_of,
    throughput,
)


def fill(recorder: Recorder) -> None:
    """Record three measured models, one failed, one without weights, one unreadable."""
    add_all(
        recorder, "simple_cnn", "a" * 64, cost(), accuracy(6_806), latency(400_000),
        throughput(3_000), throughput(9_000, 8), load(generator_share=0.95), VERIFIED,
    )  # fmt: skip
    add_all(
        recorder, "small_net", "b" * 64, cost("small", 100_000, 400_000, 40_000_000),
        accuracy(8_906, gap=0.05), latency(900_000), throughput(1_500), load(),
    )  # fmt: skip
    add_all(
        recorder, "wasteful", "d" * 64, cost("big", 4_000_000, 16_000_000, 400_000_000),
        accuracy(6_000), latency(1_900_000),
    )  # fmt: skip
    add_all(recorder, "broken", "c" * 64, cost("broken"), failure())
    add_all(recorder, "heavy", "e" * 64, cost("heavy", 138_357_544, random_weights=True))
    add_all(recorder, "unreadable", "", failure("open"))


def reports(recorder: Recorder) -> list[Shown]:
    results = recorder.folder.parent
    return prepare(read_results(results), results)


GOLDEN = """\
| Model | Accuracy, % | Latency, ms | p99, ms | Requests/s, shared cores | Size, MB | MACs, M | Parameters |
| :-- | --: | --: | --: | --: | --: | --: | --: |
| `small_net` | 89.06 (88.43–89.66) | 0.900 | 0.949 | 2,000 | 0.400 | 40.0 | 100,000 |
| `simple_cnn` | 68.06 (67.14–68.97) | 0.400 | 0.449 | 2,000* | 8.50 | 11.9 | 2,122,186 |
| `wasteful` | 60.00 (59.04–60.96) | 1.90 | 1.95 | – | 16.0 | 400 | 4,000,000 |
"""  # noqa: E501 - a golden line

GOLDEN_CSV = """\
model,precision,recipe,accuracy,accuracy_low,accuracy_high,floor_reached,seeds,seed,gap,\
parameters_total,parameters_trainable,macs,size_bytes,accuracy_points_per_million_parameters,\
latency_p50_ms,latency_typical_ms,latency_p99_ms,throughput_images_per_second,\
throughput_batch_size,http_requests_per_second,training_seconds,training_hardware,test_images,dataset,provider,pareto,\
notes,digest
small_net,fp32,small,0.8906,0.8843315065025316,0.8965685139702958,0.85,1,0,0.05,100000,100000,\
40000000,400000,890.5999999999998,0.9,0.9,0.949,1500.0,1,2000.0,300.0,2 cores,10000,cifar10-jpeg75,\
CPUExecutionProvider,latency size MACs,,\
bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
simple_cnn,fp32,simple_cnn,0.6806,0.6713939232917513,0.6896673764967604,0.0,1,0,0.174,2122186,\
2122186,11877888,8500000,32.07070445286134,0.4,0.4,0.449,9000.0,8,2000.0,300.0,2 cores,10000,\
cifar10-jpeg75,CPUExecutionProvider,latency MACs,,\
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
wasteful,fp32,big,0.6,0.5903615437302925,0.6095616565955722,0.0,1,0,0.174,4000000,4000000,\
400000000,16000000,15.0,1.9,1.9,1.949,,,,300.0,2 cores,10000,cifar10-jpeg75,CPUExecutionProvider,,,\
dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd
heavy,fp32,heavy,,,,,,0,,138357544,138357544,11877888,8500000,,,,,,,,,2 cores,,,,,random \
weights: cost only,eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee
broken,fp32,broken,,,,,,0,,2122186,2122186,11877888,8500000,,,,,,,,300.0,2 cores,,,,,failed at \
latency: RuntimeError: out of memory | at node 7,\
cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
unreadable,,,,,,,,,,,,,,,,,,,,,,,,,,,failed at open: RuntimeError: out of memory | at node 7,
"""


def test_the_efficiency_table_has_measured_models_and_at_most_eight_columns(
    recorder: Recorder,
) -> None:
    fill(recorder)
    (shown,) = reports(recorder)
    table = efficiency_table(shown.subjects, shown.models)
    assert table.short().markdown() + "\n" == GOLDEN
    assert len(table.columns) > len(table.short().columns) == 8


def test_what_has_no_figures_stands_apart_with_its_reason(recorder: Recorder) -> None:
    fill(recorder)
    (shown,) = reports(recorder)
    assert "| `heavy` | – | – | 8.50 | 11.9 | 138,357,544 |" in text_of(
        cost_only, shown.results, shown.models
    )
    failed = text_of(failures, shown.results, shown.models)
    assert failed.count("failed at") == 2
    assert "| `broken` | failed at latency: RuntimeError: out of memory \\| at node 7 |" in failed


def test_the_csv_has_the_same_lines_exactly(recorder: Recorder) -> None:
    fill(recorder)
    assert efficiency_csv(reports(recorder)[0].models) == GOLDEN_CSV


def test_the_records_have_the_same_lines_and_lists(recorder: Recorder) -> None:
    fill(recorder)
    (machine,) = json.loads(render_json(reports(recorder)))["machines"]
    assert machine["conditions"].startswith("Measured on Test CPU 9000, 2 cores")
    lines = list(csv.DictReader(io.StringIO(GOLDEN_CSV)))
    assert [model["model"] for model in machine["models"]] == [line["model"] for line in lines]
    for model, line in zip(machine["models"], lines, strict=True):
        assert model["pareto"] == line["pareto"].split()
        assert "; ".join(model["notes"]) == line["notes"]
        for name in ("accuracy", "latency_p50_ms", "size_bytes", "digest"):
            assert ("" if model[name] is None else str(model[name])) == line[name]


def test_an_early_exit_is_compared_by_its_mean_and_noted(recorder: Recorder) -> None:
    """Three quarters of its images take 0.4 ms, the others 0.9: the median leaves those out."""
    samples = (400_000,) * 75 + (900_000,) * 25
    add_all(recorder, "always", "a" * 64, cost(), accuracy(8_800), latency(500_000))
    add_all(
        recorder, "some", "b" * 64, replace(cost(), second_looks=0.25), accuracy(8_801),
        replace(latency(1), samples_ns=samples),
    )  # fmt: skip
    models = {model.model: model for model in select(read_results(recorder.folder.parent)[0].rows)}
    assert models["some"].latency_ms(50) == 0.4
    assert models["some"].typical_latency_ms == models["some"].cost_in("latency") == 0.525
    assert models["always"].typical_latency_ms == 0.5
    (report,) = reports(recorder)
    (line,) = [one for one in csv.DictReader(io.StringIO(efficiency_csv(report.models)))
               if one["model"] == "some"]  # fmt: skip
    assert line["notes"] == (
        "early exit: a second view for 25.00 % of validation images, 0.525 ms on average"
    )
    assert (float(line["latency_p50_ms"]), float(line["latency_typical_ms"])) == (0.4, 0.525)
    (verdict,) = verdicts(report)
    assert verdict.model.model == "always"
    assert ("0.500 ms", "an image (p50, one core)") in verdict.figures


def test_the_study_beside_ours(recorder: Recorder) -> None:
    fill(recorder)
    lines = study_table(reports(recorder)[0].models).markdown().splitlines()
    assert lines[2] == (
        "| Simple CNN | 69.37 | 86.8 | 17.4 | 9 | simple_cnn | 68.06 (67.14–68.97) | -1.3 | 17.4 "
        "| 9 |"
    )
    assert lines[3] == "| MobileNetV2, frozen | 51.09 | 91.8 | – | – | – | – | – | – | – |"
    assert lines[8] == "| VGG16 | ~ 25 | – | – | 5 | – | – | – | – | – |"
    assert len(lines) == 2 + 12


def test_a_failure_is_gone_after_a_later_success(recorder: Recorder, machine: Machine) -> None:
    add_all(recorder, "a", "a" * 64, cost(), latency(1_000_000), failure())
    (found,) = reports(recorder)[0].models
    assert found.failures == (failure(),)  # in the same run: some batch size failed
    again = Recorder(recorder.folder.parent, machine, {}, run_id="second")
    rows = [*reports(recorder)[0].results.rows]
    later = replace(again.add("a", "a" * 64, None, latency(900_000)), created="9999")
    (found,) = select([*rows, later])
    assert found.failures == ()


def test_rows_of_an_older_export_are_not_mixed_in(recorder: Recorder) -> None:
    rows = [
        recorder.add("a", "old", None, cost()),
        recorder.add("a", "old", REFERENCE, accuracy(9_000)),
        recorder.add("a", "new", None, cost()),
    ]
    (found,) = select(dated(rows))
    assert (found.digest, found.accuracy) == ("new", None)


def dated(rows: list[Row]) -> list[Row]:
    return [replace(row, created=f"2026-01-01T00:00:{n:02d}") for n, row in enumerate(rows)]


def test_each_provider_has_its_line(recorder: Recorder) -> None:
    add_all(recorder, "a", "a" * 64, cost(), latency(1_000_000))
    recorder.add("a", "a" * 64, None, replace(latency(100_000), provider=CUDA_PROVIDER))
    table = efficiency_table(reports(recorder)[0].models).markdown()
    assert "| 1.00 | 1.05 |" in table
    assert "| CPU |" in table
    assert "| 0.100 | 0.149 |" in table
    assert "| CUDA |" in table


def test_pareto() -> None:
    candidates = [
        Candidate("best", 0.9, 10),
        Candidate("cheap", 0.7, 1),
        Candidate("twin", 0.7, 1),
        Candidate("dominated", 0.7, 5),
        Candidate("beaten", 0.6, 11),
    ]
    assert pareto_front(candidates) == {"best", "cheap", "twin"}
    assert pareto_front([]) == frozenset()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.000123456, "0.000123"), (0.4, "0.400"), (11.877888, "11.9"), (999.6, "1,000"),
     (123456.7, "123,457"), (None, "–"), (-2.5, "-2.50")],
)  # fmt: skip
def test_significant_digits(number: float | None, text: str) -> None:
    assert significant(number) == text


def test_a_pipe_does_not_break_a_table() -> None:
    assert Table([words("a", str)], ["x|y"]).markdown() == "| a |\n| :-- |\n| x\\|y |"


def test_write_then_check_then_measure_again(
    tmp_path: Path, recorder: Recorder, machine: Machine
) -> None:
    fill(recorder)
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n\n{TABLE_BEGIN}\nold\n{TABLE_END}\n\nAfter\n")
    left_over = tmp_path / "results" / machine.name / "plots" / "older.png"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    written = write_report(reports(recorder), tmp_path / "results", tmp_path)
    assert [path.name for path in written] == [
        "table.csv", "study.csv", "front.svg", "trade_offs.svg", "throughput.svg", "load.svg",
        "efficiency.json", "REPORT.md", "README.md", "report.html",
    ]  # fmt: skip
    assert not left_over.exists()
    for path in written[2:6]:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = readme.read_text()
    assert text.startswith(f"# Before\n\n{TABLE_BEGIN}\n| Model | Use it when | Accuracy, % |")
    assert text.endswith(f"{TABLE_END}\n\nAfter\n")
    report = (tmp_path / "REPORT.md").read_text()
    assert GOLDEN in report
    assert report.index("# Ship `small_net`") < report.index("| Model |")
    assert f"](results/{machine.name}/plots/load.svg)" in report
    assert "The load generator was the limit for simple_cnn" in report

    assert stale_files(reports(recorder), tmp_path / "results", tmp_path) == []
    picture = written[2].read_bytes()
    (tmp_path / "report.html").unlink()  # built, not committed
    readme.write_text(text.replace("68.06", "78.06"))
    written[2].unlink()
    left_over.touch()
    assert stale_files(reports(recorder), tmp_path / "results", tmp_path) == [
        written[2], readme, left_over,
    ]  # fmt: skip

    readme.write_text(text)
    left_over.unlink()
    written[2].write_bytes(picture)
    assert stale_files(reports(recorder), tmp_path / "results", tmp_path) == []
    recorder.add("simple_cnn", "a" * 64, None, latency(300_000))
    assert {
        path.name for path in stale_files(reports(recorder), tmp_path / "results", tmp_path)
    } == {path.name for path in written} - {"report.html", "load.svg", "study.csv"}


def test_a_long_table_is_a_csv_file_with_a_link(tmp_path: Path, recorder: Recorder) -> None:
    for number in range(MOST_ROWS + 1):
        add_all(recorder, f"net{number}", f"{number:x}" * 64, cost(f"net{number}"),
                accuracy(8_000 + number), latency(400_000))  # fmt: skip
    write_report(reports(recorder), tmp_path / "results", tmp_path)
    folder = f"results/{recorder.folder.name}"
    assert (
        f"{MOST_ROWS + 1} rows: [latency.csv]({folder}/latency.csv)"
        in (tmp_path / "REPORT.md").read_text()
    )
    lines = (tmp_path / folder / "latency.csv").read_text().splitlines()
    assert lines[0].startswith('Model,Batch,"p50, ms (95 % interval)"')
    assert len(lines) == 1 + MOST_ROWS + 1


def test_the_committed_report_is_short() -> None:
    assert len((PROJECT_ROOT / "REPORT.md").read_text().splitlines()) <= 300
    pictures = list((PROJECT_ROOT / "results").glob("*/plots/*"))
    assert len(pictures) <= 6
    assert sum(path.stat().st_size for path in pictures) < 500_000


def test_a_readme_without_markers(tmp_path: Path, recorder: Recorder) -> None:
    fill(recorder)
    (tmp_path / "README.md").write_text("# No place\n")
    with pytest.raises(BenchError, match="no place for the table"):
        write_report(reports(recorder), tmp_path / "results", tmp_path)
    assert not (tmp_path / "REPORT.md").exists()


def test_nothing_measured(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="Measure first: cifar10 bench run"):
        prepare(read_results(tmp_path), tmp_path)


def test_an_open_loop_is_shown_as_one_and_is_not_the_rate_of_the_table(
    recorder: Recorder, tmp_path: Path
) -> None:
    offered = replace(load(requests=2_000), rate_per_s=200.0, shape="poisson")
    for measurement in (cost(), accuracy(6_806), load(), offered):
        recorder.add("simple_cnn", "d" * 64, REFERENCE, measurement)
    (found,) = select(read_results(tmp_path / "results")[0].rows)
    assert (found.load, found.offered) == (load(), (offered,))
    text = text_of(load_section, read_results(tmp_path / "results")[0], [found])
    assert "| simple_cnn | 16 | 2,000 |" in text
    assert "| simple_cnn | 16 | 200 |" in text
    (table,) = (block for block in load_section(Shown(None, (found,))) if isinstance(block, Table))
    assert "open, poisson, 200/s offered" in table.csv()


def test_requests_per_second_names_the_cores_it_was_measured_on(recorder: Recorder) -> None:
    shares = replace(SETTINGS, generator_shares=True)
    add_all(recorder, "net", "a" * 64, cost(), accuracy(9_000), load(), SETTINGS, shares, peer())
    (shown,) = reports(recorder)
    titles = {
        title
        for section in all_sections()
        for block in section.blocks(shown)
        if isinstance(block, Table)
        for title in block.titles
        if title.startswith("Requests/s")
    }
    assert titles == {
        "Requests/s, shared cores", "Requests/s, shared cores, median (range)",
        "Requests/s, one core, median (range)",
    }  # fmt: skip


def test_the_report_imports_nothing_that_measures() -> None:
    """It imports rows, statistics and the kernel, so nothing that renders can start a server."""
    program = (
        "import sys, bench.report.build, bench.report.sections as s; s.all_sections(); "
        "print([m for m in sys.modules if m.startswith('bench.')])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT_ROOT,
    )
    rooms = {name.split(".")[1] for name in ast.literal_eval(answer.stdout)}
    assert rooms == {"report", "rows", "statistics"}
    for room in rooms:
        for path in (PROJECT_ROOT / "bench" / room).rglob("*.py"):
            imported = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
            assert not {"psutil", "httpx", "subprocess", "locust"} & set(imported), path
