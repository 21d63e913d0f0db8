"""Measurements of another engine than ONNX Runtime: rows name the one that really ran."""

from pathlib import Path

import pytest

from bench.commands.choices import open_model
from bench.measure.resources import measure_resources
from bench.rows.files import Recorder, read_rows
from bench.rows.kinds.cost import ResourceMeasurement
from bench.serving.load import ask_what_is_served
from bench.serving.process import Server, device_named
from cifar10.dataset import Dataset
from cifar10.store import ModelStore
from tests.bench.scenarios.test_scenario_runs import FAKE
from tests.conftest import needs_openvino


@pytest.mark.parametrize(
    ("provider", "device"), [("OpenVINO", "openvino"), ("CPUExecutionProvider", "cpu")]
)
def test_the_server_says_which_engine_answers(
    tiny_store: Path, synthetic: Dataset, provider: str, device: str
) -> None:
    with Server(tiny_store, command=(*FAKE, "--provider", provider)) as server:
        found = ask_what_is_served(server.url, synthetic.test.images[0], None)
    assert (found.model, found.device) == ("tiny_a", device)


def test_a_server_started_here_has_the_engine_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert device_named("cpu") == "cpu"
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    assert device_named("cpu") == "openvino"


@needs_openvino
def test_in_process_the_environment_chooses_the_engine(
    tiny_store: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tiny_store)
    assert open_model(store.load("tiny_a"), "auto", 1).provider == "CPUExecutionProvider"
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    assert open_model(store.load("tiny_a"), "auto", 1).provider == "OpenVINO"
    measure_resources(
        store, ["tiny_a"], recorder, open_model=lambda stored: open_model(stored, "auto", 1),
        device="cpu", starts=1, energy_seconds=0.01,
    )  # fmt: skip
    (row,) = read_rows(recorder.folder / "resources.jsonl")
    assert isinstance(row.measurement, ResourceMeasurement)
    assert row.measurement.provider == "OpenVINO"
    assert row.measurement.activation_bytes_largest is None
