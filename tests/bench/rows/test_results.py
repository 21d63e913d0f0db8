import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.report.build import prepare
from bench.report.page import render_html
from bench.rows.files import MACHINES_FILE, Recorder, read_results, read_rows
from bench.rows.kinds import adapter_of, kinds
from bench.rows.kinds.accuracy import SendingMeasurement, mean_corrupted_accuracy
from bench.rows.kinds.cost import VariantMeasurement
from bench.rows.kinds.fleet import FleetMeasurement
from bench.rows.kinds.service import (
    BulkMeasurement,
    ChaosMeasurement,
    PeerFailureMeasurement,
    SettingsMeasurement,
)
from bench.rows.kinds.session import PlanMeasurement, SensitivityMeasurement, Trial
from bench.rows.kinds.speed import ScenarioMeasurement
from bench.rows.machine import Machine, read_machine, read_versions
from bench.rows.packed import pack_times_us
from bench.rows.row import DatasetReference
from bench.rows.selection import newest, select
from bench.statistics.rate_search import RateTry
from cifar10.card import Parity, VariantRecord
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError
from cifar10.labels import DATASET_NAME
from cifar10.paired import PairedTest
from tests.bench.conftest import (
    TRAINED,
    VERIFIED,
    accuracy,
    cost,
    failure,
    latency,
    load,
    peer,
    resources,
    robustness,
    throughput,
    verdicts,
)

SCENARIO = ScenarioMeasurement(
    scenario="server", via="http", device="cpu", loop="open", images_per_query=1, concurrency=0,
    warm_up_queries=3, seconds=1.0, queries=2, failed=0, times_us=pack_times_us([1_000, 2_000]),
    window_queries=(1, 1), seed=0, bound_ms=15.0, rate_per_s=None,
    tries=(RateTry(10.0, 2, 2, None, held=False),), send_lag_p99_ms=0.1, generator_cpu_share=0.2,
)  # fmt: skip
SENSITIVITY = SensitivityMeasurement(
    "cpu", 3, 8, 6.0, 10.0, 0.5, 500.0, 100.0, 3.0,
    (Trial("slower_server", "server", 2, True, "load", "ratio", 1.2, 1.1, 1.3),),
)  # fmt: skip

CHAOS = ChaosMeasurement(
    "kill",
    2,
    4.0,
    {"200": 100},
    {"workers_killed": 1.0},
    ((0.0, 10), (1.0, 11)),
    "it answers",
    True,
)

PLAN = PlanMeasurement("full", "the baseline", (), "the rule")

SENDING = SendingMeasurement("CPUExecutionProvider", "tile, PNG", 8, 0, "/w==", "/w==")

ALL = (accuracy(6_806), cost(), latency(400_000), throughput(3_000), load(), VERIFIED, failure(),
       SCENARIO, SENSITIVITY, CHAOS, robustness(), resources(), TRAINED, peer(),
       PLAN, SENDING, PeerFailureMeasurement("x", "X 1", "BenchError", "no wheels"),
       BulkMeasurement("cpu", 256, 2, 3.0, (1.0,), (2.0,), 32, (3.0,), (4.0,)),
       SettingsMeasurement("cpu", 2, True, 2, 1, 32, 32, 3.0, (9.0,), (1.0,), (2.0,), (1.0,), (8,)),
       FleetMeasurement("kill", "a kill", "0 fail", "HAProxy 2", 3, 1, 9.0, 1.0, {"200": 9}, 0.1,
           1.0, None, 1, (0.5,), 1, 2, (3.0,), (), 0.7),
       verdicts("auto", small=("tiny", "a" * 64)),
       VariantMeasurement("int8", "tiny", 1_000, VariantRecord("tiny", "a" * 64, "static", 100,
           PairedTest(100, 2, 1, 1.0, "exact binomial", 0.01, -0.02, 0.04)),
           Parity("validation images, against tiny", 100, 0.01, 0.97), None))  # fmt: skip


def test_every_kind_of_row_survives_a_round_trip(tmp_path: Path, recorder: Recorder) -> None:
    assert {type(measurement) for measurement in ALL} == set(kinds().values())
    reference = DatasetReference("synthetic", "0")
    written = [recorder.add("a", "d" * 64, reference, measurement) for measurement in ALL]
    (found,) = read_results(tmp_path / "results")
    assert sorted(found.rows, key=lambda row: row.kind) == sorted(written, key=lambda row: row.kind)
    assert found.machine.cpu == "Test CPU 9000"
    assert {row.machine for row in found.rows} == {found.machine.identity}


def test_the_newest_row_is_used_and_the_older_is_kept(recorder: Recorder) -> None:
    recorder.add("a", "d", None, latency(400_000))
    recorder.add("a", "d", None, latency(400_000, batch_size=8))
    recorder.add("a", "d", None, latency(300_000))
    rows = read_rows(recorder.folder / "latency.jsonl")
    assert len(rows) == 3
    assert newest(rows) == rows[1:]


def test_a_quick_row_never_replaces_a_full_one(recorder: Recorder) -> None:
    full = recorder.add("a", "d", None, cost())
    quick = replace(full, quick=True, created="9999")
    assert newest([full, quick]) == [full]
    assert newest([quick]) == [quick]


def test_a_truncated_last_line_is_skipped_and_the_next_row_is_complete(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [recorder.add("a", "d", None, latency(n * 1_000_000)) for n in (1, 2)]
    path = recorder.folder / "latency.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        assert read_rows(path) == rows[:1]
    assert f"{path}, line 2 is cut off" in caplog.text
    third = recorder.add("a", "d", None, latency(3_000_000))
    assert read_rows(path) == [rows[0], third]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line[: len(line) // 2], "line 1 is damaged"),
        (lambda line: "[]", "line 1 is damaged: Input should be an object"),
        (lambda line: line.replace('"kind":"latency"', '"kind":"speed"'), "kind is 'speed'"),
        (lambda line: line.replace('"schema_version":1', '"schema_version":9'), "schema version 9"),
        (
            lambda line: line.replace('"threads":1', '"threads":"1"'),
            "measurement.threads: Input should be a valid integer, got '1'",
        ),
        (lambda line: line.replace('"run_id":"first",', ""), "run_id: Field required"),
    ],
)
def test_damage_names_the_file_and_the_line(recorder: Recorder, change, says: str) -> None:
    recorder.add("a", "d", None, latency(1_000_000))
    path = recorder.folder / "latency.jsonl"
    line = path.read_text()
    path.write_text(change(line.strip()) + "\n" + line)
    with pytest.raises(BenchError) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_full_disk_is_an_error_and_earlier_rows_are_kept(recorder: Recorder) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    kept = recorder.add("a", "d", None, cost())
    (recorder.folder / "latency.jsonl").symlink_to("/dev/full")
    with pytest.raises(BenchError, match="No space left on device"):
        recorder.add("a", "d", None, latency(1_000_000))
    assert read_rows(recorder.folder / "cost.jsonl") == [kept]


def test_a_partial_write_is_undone(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = recorder.add("a", "d", None, cost())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.rows.files.os.fsync", full)
    with pytest.raises(BenchError, match="rows written before are intact"):
        recorder.add("a", "d", None, cost())
    path = recorder.folder / "cost.jsonl"
    assert read_rows(path) == [kept]
    assert path.read_bytes().endswith(b"}\n")


def test_an_unwritable_folder_is_an_error(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BenchError, match="cannot make"):
        Recorder(tmp_path / "results", machine, {})


def test_a_changed_machine_is_kept_beside_the_old_one(tmp_path: Path, machine: Machine) -> None:
    for kernel in ("1.0", "1.0", "2.0"):
        Recorder(tmp_path, replace(machine, kernel=kernel), {})
    lines = (tmp_path / machine.name / "machines.jsonl").read_text().splitlines()
    assert [json.loads(line)["kernel"] for line in lines] == ["1.0", "2.0"]


def test_machine_names(machine: Machine) -> None:
    assert machine.name.startswith("test-cpu-9000-2-cores-")
    assert replace(machine, kernel="2.0").name == machine.name
    assert replace(machine, kernel="2.0").state != machine.state
    assert replace(machine, gpus=("NVIDIA X",)).name != machine.name


def test_this_machine_can_be_read() -> None:
    found = read_machine()
    assert found == read_machine()
    assert found.logical_cores >= 1
    assert found.memory_bytes > 0
    assert "numpy" in read_versions()


def test_rows_stay_small(recorder: Recorder) -> None:
    samples = tuple(1_234_500 + 100 * step for step in range(2_000))
    recorder.add("a", "d" * 64, None, replace(latency(1), samples_ns=samples))
    assert (recorder.folder / "latency.jsonl").stat().st_size < 20_000


def test_a_failure_row_contains_no_local_path(recorder: Recorder) -> None:
    error = BenchError(f"{PROJECT_ROOT / 'models' / 'a'} is bad; {Path.home() / 'x'}\nmore")
    row = recorder.add_failure("a", "", "open", error)
    assert row.measurement.message == "./models/a is bad; ~/x"


ADDED_LATER = {
    "chaos": ["title", "outcomes", "broken"],
    "latency": ["batches"],
    "load": ["rate_per_s", "shape"],
    "accuracy": ["predictions", "hits", "reliability"],
    "cost": ["seed", "second_looks"],
    "training": ["recipe_fields"],
}
"""Kind → fields that its oldest rows lack."""


def test_rows_older_than_a_field_are_still_read(recorder: Recorder) -> None:
    for measurement in (accuracy(6_806), cost(), load(), latency(1_000_000), TRAINED, CHAOS):
        recorder.add("a", "d", DatasetReference("synthetic", "0"), measurement)
    for kind, fields in ADDED_LATER.items():
        path = recorder.folder / f"{kind}.jsonl"
        row = json.loads(path.read_text())
        for field in fields:
            del row["measurement"][field]
        path.write_text(json.dumps(row) + "\n")
    (found,) = select(read_results(recorder.folder.parent)[0].rows)
    assert (found.accuracy.hits, found.accuracy.reliability, found.cost.seed) == ("", None, None)
    assert (found.load.rate_per_s, found.offered) == (None, ())
    assert (found.latency[1].batches, found.exits_early) == (None, False)
    report = prepare(read_results(recorder.folder.parent), recorder.folder.parent)
    assert "68.06" in render_html(report)


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "results").glob("*/*.jsonl")), ids=str)
def test_every_published_row_is_read_to_the_values_it_holds(path: Path) -> None:
    if path.name == MACHINES_FILE:
        return
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = read_rows(path)
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        found = json.loads(adapter_of(row.kind).dump_json(row))
        for field in set(found["measurement"]) - set(line["measurement"]):
            assert field in ADDED_LATER[row.kind]
            del found["measurement"][field]
        if line["dataset"] is not None and "name" not in line["dataset"]:
            assert found["dataset"].pop("name") == DATASET_NAME
        assert found == line


def test_rows_before_and_after_a_reboot_share_a_machine(tmp_path: Path, machine: Machine) -> None:
    rebooted = replace(machine, kernel="2.0", memory_bytes=machine.memory_bytes - 4_096)
    assert (rebooted.identity, rebooted.name) == (machine.identity, machine.name)
    for state in (machine, rebooted):
        Recorder(tmp_path, state, {}).add("a", "d", None, cost())
    path = tmp_path / machine.name / "cost.jsonl"
    older = path.read_text().replace(machine.identity, machine.state, 1)
    path.write_text(older)
    (found,) = read_results(tmp_path)
    assert {row.machine for row in found.rows} == {machine.identity}


def test_the_folders_of_published_results_keep_their_names() -> None:
    for found in read_results(PROJECT_ROOT / "results"):
        assert found.name == found.machine.name
        assert {row.machine for row in found.rows} == {found.machine.identity}


def test_a_measurement_of_the_wrong_type_is_rejected() -> None:
    with pytest.raises(ValidationError, match="threads"):
        replace(latency(1_000_000), threads="1")


def test_derived_figures() -> None:
    found = [robustness("blur", 1_400), robustness("JPEG", 1_200)]
    assert mean_corrupted_accuracy(found) == pytest.approx((1_100 + 900) / 2 / 2_000)
    assert mean_corrupted_accuracy([]) is None
    study = cost(parameters=2_122_186)
    assert study.accuracy_per_million_parameters(0.6937) == pytest.approx(32.69, abs=0.005)
    assert VERIFIED.is_verified
    assert not replace(VERIFIED, same_top1=9_999).is_verified
    assert not replace(VERIFIED, card_correct=6_805).is_verified
    assert load(requests=20_000).request_rate == 2_000
    assert load(generator_share=0.95).generator_was_limit
    assert load().server_cpu_us == pytest.approx(8e6 / 20_500)
    assert load(requests=2).response_times_ms.tolist() == [5.0, 10.0]
