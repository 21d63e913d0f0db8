"""Tests of the service with OpenVINO in place of ONNX Runtime."""

import asyncio

import httpx
import pytest

from cifar10 import openvino_session
from cifar10.errors import ProviderUnavailableError
from cifar10.store import ModelStore
from service import settings as settings_module
from service.choice import choose
from service.models import batch_sizes, load_model, predictor_options
from service.settings import Settings, SettingsError, read_settings
from service.workers.preflight import check_before_start
from tests.conftest import add_model, linear_onnx, needs_openvino
from tests.service.cases import PNG
from tests.service.conftest import make_edge, running
from tests.service.stores import spoil_golden


@pytest.fixture
def store(tmp_path):
    for seed, name in enumerate(("tiny_a", "tiny_b")):
        add_model(tmp_path, name, linear_onnx(seed))
    return tmp_path


def ask(store, engine: str, *paths: str) -> list[httpx.Response]:
    async def main():
        async with running(make_edge(store, engine=engine)) as client:
            answer = await client.post("/classify?top_k=10", content=PNG)
            return [answer, *[await client.get(path) for path in paths]]

    return asyncio.run(main())


@needs_openvino
def test_it_answers_as_onnx_runtime_and_is_named(store):
    paths = ("/models", "/models/tiny_a", "/v2/models/tiny_a", "/v2/models/tiny_a/config")
    answer, listed, shown, described, configured = ask(store, "openvino", *paths)
    expected, *_ = ask(store, "onnxruntime")
    assert answer.status_code == 200
    confidence = answer.json().pop("confidence")
    assert confidence == pytest.approx(expected.json()["confidence"], abs=1e-6)
    assert answer.json()["label"] == expected.json()["label"]
    assert [one["provider"] for one in listed.json()["models"]] == ["OpenVINO", "OpenVINO"]
    assert (shown.json()["device"], shown.json()["providers"]) == ("cpu", ["OpenVINO"])
    assert described.json()["platform"] == "openvino"
    assert configured.json()["backend"] == "openvino"
    assert configured.json()["instance_group"][0]["kind"] == "KIND_CPU"


@needs_openvino
def test_a_model_whose_answers_differ_is_not_ready(store):
    spoil_golden(store)
    answer, ready, metrics = ask(store, "openvino", "/readyz", "/metrics")
    assert ready.status_code == 503
    ((name, reason),) = ready.json()["models"].items()
    assert name == "tiny_b"
    assert "golden images" in reason
    assert "on OpenVINO" in reason
    assert "\n" not in reason
    assert answer.status_code == 200
    assert 'provider="OpenVINO"' in metrics.text


@needs_openvino
def test_every_size_is_run_before_a_model_is_ready(store, monkeypatch):
    """OpenVINO compiles its kernels for each shape: the first run of a size is slow."""
    sizes = []
    run = openvino_session.OpenVinoSession.run

    def counted(session, names, feeds):
        sizes.append(len(feeds["image"]))
        return run(session, names, feeds)

    monkeypatch.setattr(openvino_session.OpenVinoSession, "run", counted)
    chosen = Settings(engine="openvino", max_batch=12)
    load_model(ModelStore(store), "tiny_a", predictor_options(chosen), chosen.max_batch)
    assert set(sizes) == set(range(1, 13))


def test_the_sizes_that_are_compiled():
    assert batch_sizes(12, compiled=True) == list(range(1, 13))
    assert batch_sizes(100, compiled=True) == [*range(1, 33), 64, 100]


def test_the_server_does_not_start_without_the_package(store, monkeypatch):
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ProviderUnavailableError, match="Install the extra `openvino`"):
        check_before_start(Settings(engine="openvino"), ModelStore(store))


def test_a_gpu_changes_neither_its_workers_nor_its_default_model(tmp_path, monkeypatch):
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("cifar10.predictor.ort.get_available_providers", lambda: providers)
    monkeypatch.setattr("cifar10.predictor.nvidia_driver_present", lambda: True)
    monkeypatch.setattr("cifar10.predictor.cudnn_present", lambda: True)
    monkeypatch.setattr(settings_module, "usable_cores", lambda: 6)
    monkeypatch.delenv("CIFAR10_WORKERS", raising=False)
    for name in ("compact", "compact_int8"):
        add_model(tmp_path, name, linear_onnx(0))
    for engine, workers, default in (
        ("openvino", 6, "compact_int8"),
        ("onnxruntime", 1, "compact"),
    ):
        monkeypatch.setenv("CIFAR10_ENGINE", engine)
        found = read_settings()
        assert found.workers == workers
        assert choose(found, ModelStore(tmp_path)).default == default


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ENGINE": "tvm"}, "CIFAR10_ENGINE='tvm' is not accepted: .*'onnxruntime' or 'openvino'"),
        ({"ENGINE": "openvino", "DEVICE": "cuda"}, "CIFAR10_ENGINE.*runs models on the CPU"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(f"CIFAR10_{name}", value)
    with pytest.raises(SettingsError, match=message):
        read_settings()
