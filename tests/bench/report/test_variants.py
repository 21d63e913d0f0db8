"""Tests of int8 and float16 variants in the report: source, cost, or why they were refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.measure.in_process import measure_models
from bench.measure.latency import LatencyPlan
from bench.measure.setup import Setup
from bench.report.build import prepare, render_report
from bench.report.efficiency import efficiency_csv, efficiency_table, entries
from bench.report.sections.others import refused
from bench.report.sections.study import study_table
from bench.report.sections.variants import variants
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.cost import VariantMeasurement
from bench.rows.selection import select
from cifar10.card import Parity, RefusedVariant, VariantRecord
from cifar10.dataset import Dataset
from cifar10.paired import mcnemar
from cifar10.records import to_json
from cifar10.store import ModelStore
from tests.bench.conftest import accuracy, add_all, cost, latency, open_on_cpu, text_of
from tests.conftest import add_model, linear_onnx

VALIDATION = mcnemar(np.arange(5_000) < 3_500, np.arange(5_000) < 3_420)  # 1.6 points lost


def variant(refused: str | None = None, source_sha256: str = "a" * 64) -> VariantMeasurement:
    record = VariantRecord("simple_cnn", source_sha256, "static", 1_000, VALIDATION)
    parity = Parity("validation images, against simple_cnn", 5_000, 0.04, 0.985)
    return VariantMeasurement("int8", "simple_cnn", 2_125_000, record, parity, refused)


def fill(recorder: Recorder, measured: VariantMeasurement) -> None:
    int8 = replace(cost(size=2_125_000), precision="int8")
    add_all(recorder, "simple_cnn", "a" * 64, cost(), accuracy(6_806), latency(400_000))
    add_all(
        recorder, "simple_cnn_int8", "b" * 64, int8, accuracy(6_800), latency(200_000), measured
    )


def line_of(table: str, name: str) -> str:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
    return line


def test_a_variant_names_its_precision_and_its_source(recorder: Recorder) -> None:
    fill(recorder, variant())
    models = select(read_results(recorder.folder.parent)[0].rows)
    line = line_of(efficiency_table(models).markdown(), "`simple_cnn_int8`")
    assert "| int8 of simple_cnn |" in line
    assert line.endswith("| latency, size | – |")
    assert "simple_cnn_int8,int8,simple_cnn,0.68," in efficiency_csv(models)
    # The study's own CNN is repeated by the model, not by a variant of it.
    assert "simple_cnn_int8" not in study_table(models).markdown()


def test_the_section_compares_it_with_its_source(recorder: Recorder) -> None:
    fill(recorder, variant())
    found = read_results(recorder.folder.parent)
    models = select(found[0].rows)
    line = line_of(text_of(variants, found[0], models), "simple_cnn_int8")
    assert line.split(" | ")[1:] == [
        "simple_cnn",
        "-1.60 (-1.95 to -1.25)",
        "98.50",
        "-0.06 (-0.11 to -0.01)",
        "99.94",
        "4.00",
        "2.00 |",
    ]
    report = render_report(
        prepare(found, recorder.folder.parent), recorder.folder.parent, recorder.folder
    )
    assert "## Variants at another precision" in report


def test_without_variants_there_is_no_section(recorder: Recorder) -> None:
    add_all(recorder, "simple_cnn", "a" * 64, cost(), accuracy(6_806))
    found = read_results(recorder.folder.parent)
    assert text_of(variants, found[0], select(found[0].rows)) == ""


def test_a_refused_variant_is_a_row_that_says_why(recorder: Recorder) -> None:
    reason = "loses 1.60 points on 5,000 validation images"
    add_all(recorder, "simple_cnn", "a" * 64, cost(), accuracy(6_806), latency(400_000))
    add_all(recorder, "simple_cnn_int8", "c" * 64, variant(reason))
    found = read_results(recorder.folder.parent)
    models = select(found[0].rows)
    assert [model.model for model in models] == ["simple_cnn", "simple_cnn_int8"]
    assert "simple_cnn_int8,int8,simple_cnn,,,," in efficiency_csv(models)
    assert text_of(variants, found[0], models) == ""
    line = line_of(text_of(refused, found[0], models), "`simple_cnn_int8`")
    assert line == f"| `simple_cnn_int8` | simple_cnn | 2.12 | it {reason} |"


def test_a_refusal_replaces_what_was_measured_of_an_older_file(recorder: Recorder) -> None:
    fill(recorder, variant())
    add_all(recorder, "simple_cnn_int8", "c" * 64, variant("loses 1.60 points"))
    last = select(read_results(recorder.folder.parent)[0].rows)[-1]
    assert (last.model, last.accuracy, last.latency) == ("simple_cnn_int8", None, {})


def test_a_variant_of_an_older_file_says_so(recorder: Recorder) -> None:
    fill(recorder, variant(source_sha256="0" * 64))
    models = select(read_results(recorder.folder.parent)[0].rows)
    notes = {entry.result.model: entry.notes for entry in entries(models)}
    assert notes == {"simple_cnn": [], "simple_cnn_int8": ["made from an older simple_cnn"]}


def test_a_run_records_variants_and_refusals(
    tmp_path: Path, recorder: Recorder, synthetic: Dataset
) -> None:
    store = ModelStore(tmp_path / "models")
    source = add_model(store.root, "one", linear_onnx(0))
    made = add_model(store.root, "one_int8", linear_onnx(1))
    record = VariantRecord("one", source.sha256, "static", 1_000, VALIDATION)
    made = replace(made, precision="int8", variant=record)
    (store.folder("one_int8") / "card.json").write_text(to_json(made))
    for name, origin in (("one_fp16", "one"), ("other_int8", "other")):
        card = replace(made, name=name, sha256="d" * 64, variant=replace(record, source=origin))
        store.folder(name).mkdir()
        refused = RefusedVariant("loses 1.60 points", card)
        (store.folder(name) / "refused.json").write_text(to_json(refused))
    outcome = measure_models(
        Setup(store, synthetic, recorder, open_on_cpu),
        store.names(),
        LatencyPlan((1,), rounds=1, warm_up_calls=1, block_calls=3),
        quick=True,
    )
    assert outcome.measured == ["one", "one_int8"]
    rows = read_results(recorder.folder.parent)[0].rows
    found = {
        row.model: (row.digest, row.measurement.record.source, row.measurement.refused)
        for row in rows
        if isinstance(row.measurement, VariantMeasurement)
    }
    # ``other`` was not measured, and neither is its variant's refusal recorded.
    assert found == {
        "one_int8": (made.sha256, "one", None),
        "one_fp16": ("d" * 64, "one", "loses 1.60 points"),
    }
