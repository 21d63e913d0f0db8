"""How many workers there are where nobody says: what the machine lets this process use."""

import os
from math import inf
from pathlib import Path

import pytest

from cifar10 import predictor as predictor_module
from cifar10.predictor import Predictor, PredictorOptions
from service import processors, settings
from service.processors import cpu_quota, usable_cores
from service.settings import read_settings
from tests.conftest import linear_onnx


def cgroups(folder: Path, membership: str, **limits: str) -> tuple[Path, Path]:
    """A made-up ``/proc/self/cgroup`` and the groups' files: ``{path with __ for /: content}``."""
    mount = folder / "mount"
    for name, content in limits.items():
        file = mount / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (folder / "membership").write_text(membership)
    return folder / "membership", mount


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"cpu_DOT_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_DOT_max": "max 100000\n"}, inf),
        ("0::/pod/box\n", {"pod__cpu_DOT_max": "300000 100000\n", "pod__box__x": ""}, 3),
        (
            "0::/pod/box\n",
            {"pod__cpu_DOT_max": "100000 50000\n", "pod__box__cpu_DOT_max": "400000 100000\n"},
            2,
        ),
        ("0::/of/the/host\n", {"cpu_DOT_max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu_DOT_max": "what is this\n"}, inf),
        (
            "4:memory:/box\n2:cpu,cpuacct:/box\n",
            {
                "cpu,cpuacct__box__cpu_DOT_cfs_quota_us": "250000\n",
                "cpu,cpuacct__box__cpu_DOT_cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "1:cpu:/\n0::/\n",
            {"cpu__cpu_DOT_cfs_quota_us": "-1\n", "cpu__cpu_DOT_cfs_period_us": "100000\n"},
            inf,
        ),
        ("", {}, inf),
    ],
    ids=["v2", "v2 without", "v2 above", "v2 least", "v2 elsewhere", "bad", "v1", "v1 -1", "none"],
)
def test_the_quota_of_control_groups(tmp_path, membership, limits, expected):
    assert cpu_quota(*cgroups(tmp_path, membership, **limits)) == expected


def test_no_control_groups_at_all(tmp_path):
    assert cpu_quota(tmp_path / "nothing", tmp_path) == inf


@pytest.mark.parametrize(
    ("quota", "cores"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (1e9, None), (inf, None)]
)
def test_cores_are_whole_and_at_least_one(monkeypatch, quota, cores):
    monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert usable_cores() == (cores or 4)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's affinity")
def test_affinity_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


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
