"""Tests of robustness, memory, start-up, energy and training history on small real models."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bench.measure.accuracy import predict_classes
from bench.measure.corruptions import CORRUPTIONS, corrupt
from bench.measure.damage import choose_images, measure_robustness
from bench.measure.energy import Meter, find_meter
from bench.measure.facts import read_training
from bench.measure.resources import measure_energy, measure_resources
from bench.measure.setup import Setup
from bench.rows.files import Recorder, read_rows
from bench.rows.kinds.accuracy import RobustnessMeasurement
from bench.rows.kinds.cost import ResourceMeasurement
from cifar10.dataset import Dataset
from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER
from cifar10.store import ModelStore
from tests.bench.conftest import open_on_cpu, resources
from tests.conftest import add_model, linear_onnx


def test_robustness_rows_match_a_direct_count(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder
) -> None:
    store = ModelStore(tiny_store)
    setup = Setup(store, synthetic, recorder, open_on_cpu)
    outcome = measure_robustness(setup, ["tiny_a", "nosuch"], images=100)
    assert outcome.measured == ["tiny_a"]
    assert "no model 'nosuch'" in outcome.failed["nosuch"]
    rows = [row.measurement for row in read_rows(recorder.folder / "robustness.jsonl")]
    assert [row.corruption for row in rows] == [one.name for one in CORRUPTIONS]
    chosen = choose_images(synthetic.test, 100)
    predictor = open_on_cpu(store.load("tiny_a"))
    contrast = rows[-1]
    assert isinstance(contrast, RobustnessMeasurement)
    copies = corrupt(CORRUPTIONS[-1], chosen.images, 5)
    assert contrast.correct[4] == (predict_classes(predictor, copies) == chosen.labels).sum()
    assert (contrast.images, contrast.provider) == (100, CPU_PROVIDER)


def test_the_choice_of_images_is_seeded_and_never_more_than_there_are(synthetic: Dataset) -> None:
    test = synthetic.test
    assert choose_images(test, 10_000) is test
    chosen = choose_images(test, 50)
    assert chosen.images.shape == (50, 32, 32, 3)
    assert (chosen.images == choose_images(test, 50).images).all()
    assert (chosen.images != choose_images(test, 50, seed=1).images).any()


def test_ctrl_c_keeps_the_corruptions_that_are_done(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    setup = Setup(ModelStore(tiny_store), synthetic, recorder, open_on_cpu, stop)
    outcome = measure_robustness(setup, ["tiny_a"], images=20)
    assert outcome.interrupted
    assert len(read_rows(recorder.folder / "robustness.jsonl")) == 2


def test_resources_of_a_real_model(tiny_store: Path, recorder: Recorder) -> None:
    store = ModelStore(tiny_store)
    outcome = measure_resources(
        store, ["tiny_a"], recorder, open_model=open_on_cpu, device="cpu", starts=1,
        energy_seconds=0.01,
    )  # fmt: skip
    assert outcome.measured == ["tiny_a"]
    (row,) = read_rows(recorder.folder / "resources.jsonl")
    found = row.measurement
    assert isinstance(found, ResourceMeasurement)
    (start,) = found.starts
    assert start.ready_ns >= start.import_ns + start.session_ns + start.first_answer_ns
    assert 0 < start.resident_bytes_libraries < start.resident_bytes_ready
    assert start.resident_bytes_ready <= start.peak_resident_bytes * 1.05
    # Scaling 3,072 floats reads and writes 12,288 bytes each: no node has more.
    assert found.activation_bytes_largest == 2 * 3_072 * 4
    assert (found.energy_source is None) == (found.energy_joules is None)


def test_a_model_that_cannot_start_is_a_row(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(tmp_path / "store", "fine", linear_onnx(0))
    monkeypatch.setattr("bench.measure.resources.STARTS", 1)
    outcome = measure_resources(
        ModelStore(tmp_path / "store"), ["fine"], recorder,
        open_model=open_on_cpu, device="tpu", starts=1,
    )  # fmt: skip
    assert "the fresh process ended with 1" in outcome.failed["fine"]


def powercap(folder: Path, name: str = "package-0", energy: str = "5000000") -> Path:
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text(name + "\n")
    (zone / "energy_uj").write_text(energy + "\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    return folder


def test_rapl_is_read_in_joules_and_its_overflow_is_handled(tmp_path: Path) -> None:
    meter = find_meter(CPU_PROVIDER, powercap(tmp_path))
    assert meter is not None
    assert (meter.source, meter.read_joules()) == ("RAPL", 5.0)
    assert meter.used(2.0, 5.0) == 3.0
    assert meter.used(262_143.0, 1.0) == pytest.approx(1.32885, abs=1e-4)


def test_no_meter_without_energy_counters(tmp_path: Path) -> None:
    assert find_meter(CPU_PROVIDER, tmp_path / "nothing") is None
    assert find_meter(CPU_PROVIDER, powercap(tmp_path / "other", name="psys")) is None
    assert find_meter(CPU_PROVIDER, powercap(tmp_path / "bad", energy="secret")) is None


class FakeNvml:
    """Fake ``pynvml`` with one GPU that has used 5 J, or that does not report its energy."""

    class NVMLError(Exception):
        pass

    def __init__(self, millijoules: int | None = 5_000) -> None:
        self.millijoules = millijoules

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        pass

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:  # noqa: N802
        if self.millijoules is None:
            raise self.NVMLError
        return self.millijoules


def test_gpu_energy_is_read_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    meter = find_meter(CUDA_PROVIDER)
    assert meter is not None
    assert (meter.source, meter.read_joules()) == ("NVML", 5.0)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(None))
    assert find_meter(CUDA_PROVIDER) is None


def test_no_gpu_meter_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_meter(CUDA_PROVIDER) is None


def test_energy_matches_a_calculation_by_hand() -> None:
    """Three batches of 32 images in three ticks of the clock, while the meter advances by 48 J."""

    class Fake:
        provider = CPU_PROVIDER

        def predict(self, images: np.ndarray) -> np.ndarray:
            return np.zeros((len(images), 10), np.float32)

    clock = iter(range(100))
    joules = iter((10.0, 58.0))
    meter = Meter("RAPL", lambda: next(joules))
    found = measure_energy(Fake(), meter, 4.0, clock=lambda: float(next(clock)))
    assert (found.images, found.joules, found.source) == (96, 48.0, "RAPL")
    assert measure_energy(Fake(), None, 1.0).joules is None
    assert resources(joules=50.0).images_per_joule == 200
    assert resources().images_per_joule is None


def test_training_history_is_read_if_present(tmp_path: Path) -> None:
    card = add_model(tmp_path, "a", linear_onnx(0))
    store = ModelStore(tmp_path)
    assert read_training(store, card).epochs == ()
    history = tmp_path / "a" / "history.csv"
    header = "epoch,loss,accuracy,validation_loss,validation_accuracy,seconds,learning_rate,phase"
    history.write_text(f"{header}\n1,1.5,0.5,1.25,0.625,9.0,0.001,all\n")
    (epoch,) = read_training(store, card).epochs
    assert (epoch.accuracy, epoch.validation_accuracy, epoch.phase) == (0.5, 0.625, "all")
    history.write_text("something else\n1\n")
    assert read_training(store, card).epochs == ()
