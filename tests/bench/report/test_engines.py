"""Tests of rows of a second engine: its line in the table, its section, and its refusals."""

from dataclasses import replace

import pytest

from bench.report.build import prepare, render_readme_table
from bench.report.efficiency import efficiency_table, entries
from bench.report.sections.engines import engines
from bench.report.verdict import comparable
from bench.rows.files import Recorder, read_results
from bench.rows.machine import Machine
from bench.rows.packed import pack_classes
from bench.rows.row import device_of, provider_of
from bench.rows.selection import ModelResult, select
from cifar10.openvino_session import OPENVINO_PROVIDER
from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER
from tests.bench.conftest import accuracy, add_all, cost, latency, text_of, throughput

DIGEST = "a" * 64


def results(recorder: Recorder) -> list[ModelResult]:
    return select(read_results(recorder.folder.parent)[0].rows)


def section(recorder: Recorder) -> str:
    return text_of(engines, read_results(recorder.folder.parent)[0], results(recorder))


def fill(recorder: Recorder) -> None:
    add_all(
        recorder,
        "compact",
        DIGEST,
        cost(),
        accuracy(9_000),
        latency(400_000),
        throughput(2_000, 64),
    )
    theirs = accuracy(9_000)
    classes = theirs.classes
    assert classes is not None
    other = classes.copy()
    other[[5, 77]] = (other[[5, 77]] + 1) % 10
    add_all(
        recorder,
        "compact",
        DIGEST,
        replace(theirs, provider=OPENVINO_PROVIDER, predictions=pack_classes(other)),
        replace(latency(200_000), provider=OPENVINO_PROVIDER),
        replace(throughput(3_000, 64), provider=OPENVINO_PROVIDER),
    )


def test_the_table_names_the_engine(recorder: Recorder) -> None:
    fill(recorder)
    table = efficiency_table(results(recorder)).markdown()
    assert "| `compact` |" in table
    assert "| `compact` (OpenVINO) |" in table
    assert [one.provider for one in comparable(results(recorder))] == [CPU_PROVIDER]


def test_only_the_section_of_engines_shows_openvino(recorder: Recorder) -> None:
    fill(recorder)
    (shown,) = prepare(read_results(recorder.folder.parent), recorder.folder.parent)
    assert [one.provider for one in shown.subjects] == [CPU_PROVIDER]
    assert [shown.name(one) for one in shown.subjects] == ["compact"]
    assert "OpenVINO" not in render_readme_table([shown])


def test_the_section_lists_the_images_with_another_class(recorder: Recorder) -> None:
    fill(recorder)
    (line,) = [line for line in section(recorder).splitlines() if line.startswith("| `compact`")]
    assert line.split(" | ")[1:] == ["10,000", "2", "5, 77", "2.00", "1.50 (64) |"]


def test_without_a_second_engine_there_is_no_section(recorder: Recorder) -> None:
    add_all(recorder, "compact", DIGEST, cost(), accuracy(9_000))
    assert section(recorder) == ""


def test_a_refusal_by_the_second_engine_is_its_own_line(
    recorder: Recorder, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    recorder.add_failure("compact", DIGEST, "open", ValueError("golden images differ"))
    monkeypatch.delenv("CIFAR10_ENGINE")
    later = Recorder(recorder.folder.parent, machine, {})
    add_all(later, "compact", DIGEST, cost(), accuracy(9_000), latency(400_000))
    notes = {one.result.provider: one.notes for one in entries(results(recorder))}
    assert notes[CPU_PROVIDER] == []
    assert notes[OPENVINO_PROVIDER] == ["failed at open: ValueError: golden images differ"]
    mended = Recorder(recorder.folder.parent, machine, {})
    add_all(mended, "compact", DIGEST, replace(accuracy(9_000), provider=OPENVINO_PROVIDER))
    assert not any(one.notes for one in entries(results(recorder)))


def test_the_device_of_a_row_names_the_engine() -> None:
    for device, provider in (
        ("cpu", CPU_PROVIDER),
        ("cuda", CUDA_PROVIDER),
        ("openvino", OPENVINO_PROVIDER),
    ):
        assert (provider_of(device), device_of(provider)) == (provider, device)
    assert device_of("Other") == provider_of("Other") == "Other"
