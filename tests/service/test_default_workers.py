"""How many workers there are where nobody says: what the machine lets this process use."""

import pytest

from cifar10 import predictor as predictor_module
from cifar10.predictor import Predictor, PredictorOptions
from service import settings
from service.settings import read_settings
from tests.conftest import linear_onnx


@pytest.mark.parametrize(
    ("device", "cuda_is_there", "workers"),
    [("cpu", True, 6), ("auto", False, 6), ("auto", True, 1), ("cuda", True, 1)],
)
def test_workers_fit_the_device(monkeypatch, device, cuda_is_there, workers):
    monkeypatch.delenv("CIFAR10_WORKERS", raising=False)
    monkeypatch.setenv("CIFAR10_DEVICE", device)
    monkeypatch.setattr(settings, "usable_cores", lambda: 6)
    predictor = "cifar10.predictor"
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(f"{predictor}.ort.get_available_providers", lambda: providers)
    monkeypatch.setattr(f"{predictor}.nvidia_driver_present", lambda: cuda_is_there)
    monkeypatch.setattr(f"{predictor}.cudnn_present", lambda: True)
    assert read_settings().workers == workers
    monkeypatch.setenv("CIFAR10_WORKERS", "3")
    assert read_settings().workers == 3


def test_a_gpu_that_this_onnx_runtime_cannot_use_is_none(monkeypatch):
    monkeypatch.delenv("CIFAR10_WORKERS", raising=False)
    monkeypatch.setattr(settings, "usable_cores", lambda: 6)
    only_cpu = ["CPUExecutionProvider"]
    monkeypatch.setattr("cifar10.predictor.ort.get_available_providers", lambda: only_cpu)
    monkeypatch.setattr("cifar10.predictor.nvidia_driver_present", lambda: True)
    assert read_settings().workers == 6


def test_a_driver_without_cuda_s_libraries_is_no_gpu(monkeypatch, caplog):
    """ONNX Runtime lists its CUDA provider all the same, and then computes on the CPU: with a
    worker for each core, and a warning."""
    monkeypatch.delenv("CIFAR10_WORKERS", raising=False)
    monkeypatch.setattr(settings, "usable_cores", lambda: 6)
    predictor = "cifar10.predictor"
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(f"{predictor}.ort.get_available_providers", lambda: providers)
    monkeypatch.setattr(f"{predictor}.nvidia_driver_present", lambda: True)
    monkeypatch.setattr(f"{predictor}.importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(f"{predictor}.ctypes.util.find_library", lambda _: None)
    assert read_settings().workers == 6
    session = predictor_module._session  # what ONNX Runtime then does
    monkeypatch.setattr(
        predictor_module,
        "_session",
        lambda onnx, options, providers: session(onnx, options, providers[1:]),
    )
    monkeypatch.setattr(predictor_module, "_preload_cuda", lambda: None)
    with caplog.at_level("WARNING"):
        Predictor(linear_onnx(0), PredictorOptions("auto"))
    assert "executes on CPUExecutionProvider" in caplog.text


def test_a_bad_device_is_still_what_is_named(monkeypatch):
    monkeypatch.setenv("CIFAR10_DEVICE", "gpu")
    with pytest.raises(settings.SettingsError, match="CIFAR10_DEVICE"):
        read_settings()
