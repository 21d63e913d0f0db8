"""Tests of the settings: the default number of workers, and their table in the documentation."""

import pytest

from cifar10 import predictor as predictor_module
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import SettingsError
from cifar10.predictor import Predictor, PredictorOptions
from service import settings
from service.settings import Settings, read_settings
from service.settings_table import BEGIN, END, settings_table, with_table
from tests.conftest import linear_onnx

WITH_TABLE = [
    path
    for path in (PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md")))
    if BEGIN in path.read_text()
]


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


def test_a_gpu_that_onnx_runtime_cannot_use_does_not_count(monkeypatch):
    monkeypatch.delenv("CIFAR10_WORKERS", raising=False)
    monkeypatch.setattr(settings, "usable_cores", lambda: 6)
    only_cpu = ["CPUExecutionProvider"]
    monkeypatch.setattr("cifar10.predictor.ort.get_available_providers", lambda: only_cpu)
    monkeypatch.setattr("cifar10.predictor.nvidia_driver_present", lambda: True)
    assert read_settings().workers == 6


def test_a_driver_without_cuda_s_libraries_does_not_count_as_a_gpu(monkeypatch, caplog):
    """ONNX Runtime still lists its CUDA provider, then runs on the CPU: with one worker per core
    and a warning."""
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
    assert "runs on CPUExecutionProvider" in caplog.text


def test_the_error_names_an_invalid_device(monkeypatch):
    monkeypatch.setenv("CIFAR10_DEVICE", "gpu")
    with pytest.raises(settings.SettingsError, match="CIFAR10_DEVICE"):
        read_settings()


def test_the_documented_settings_match_the_code():
    assert len(WITH_TABLE) == 1
    text = WITH_TABLE[0].read_text()
    remedy = f"run: python -m service.settings_table {WITH_TABLE[0].relative_to(PROJECT_ROOT)}"
    assert with_table(text) == text, remedy


def test_every_setting_says_what_it_is():
    lines = settings_table().splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    assert len({len(line) for line in lines}) == 1
    assert all(cell.strip() for line in lines for cell in line.strip("|").split("|"))
    assert "| `CIFAR10_MAX_BODY_BYTES`    | largest request body " in settings_table()
    assert [line.split("|")[3].strip() for line in lines if "MAX_" in line] == [
        "10 MiB",
        "64,000,000",
        "24,000,000",
        "32",
        "512",
        "1,000",
    ]
    assert "JPEG in several scans" in settings_table()


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_both_markers_is_refused(text: str):
    with pytest.raises(SettingsError, match="each once"):
        with_table(text)


def test_the_table_takes_the_place_of_what_was_between_the_markers():
    text = with_table(f"before\n\n{BEGIN}\n| old |\n{END}\n\nafter\n")
    assert text == f"before\n\n{BEGIN}\n{settings_table()}{END}\n\nafter\n"
