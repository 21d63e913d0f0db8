"""Tests of ``cifar10 doctor``: findings, remedies and exit code."""

import json
import socket
from pathlib import Path

import pytest

from cifar10 import openvino_session
from cifar10.commands import checks
from cifar10.commands.checks import Finding
from cifar10.commands.main import main
from tests.conftest import add_model, linear_onnx, needs_openvino


def found(capsys, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "--json", *arguments])
    return code, {one["subject"]: one for one in json.loads(capsys.readouterr().out)}


def test_a_correct_installation_has_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    card = add_model(tmp_path, "compact", linear_onnx(0))
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path))
    monkeypatch.setenv("CIFAR10_DATA", "synthetic")
    code, findings = found(capsys)
    assert code == 0, findings
    assert card.sha256[:12] in findings["model compact"]["found"]
    assert findings["CPU provider"]["state"] == "ok"
    assert {"Python", "packages", "CPU", "dataset", "weights", "browser", "port"} <= set(findings)
    assert all(one["remedy"] for one in findings.values() if one["state"] == "problem")


@needs_openvino
def test_the_second_engine_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    add_model(tmp_path, "compact", linear_onnx(0))
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path))
    monkeypatch.setattr("cifar10.commands.doctor.CHECKS", (checks.providers,))
    code, findings = found(capsys)
    assert (code, findings["OpenVINO"]["state"]) == (0, "ok")
    assert "not in use" in findings["OpenVINO"]["found"]
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    assert "in use (CIFAR10_ENGINE)" in found(capsys)[1]["OpenVINO"]["found"]


@pytest.mark.parametrize(
    ("engine", "code", "state"), [("onnxruntime", 0, "missing"), ("openvino", 1, "problem")]
)
def test_a_missing_engine_is_a_problem_only_if_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, engine: str, code: int, state: str
) -> None:
    add_model(tmp_path, "compact", linear_onnx(0))
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path))
    monkeypatch.setenv("CIFAR10_ENGINE", engine)
    monkeypatch.setattr("cifar10.commands.doctor.CHECKS", (checks.providers,))
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: None)
    ended, findings = found(capsys)
    assert (ended, findings["OpenVINO"]["state"]) == (code, state)
    assert findings["OpenVINO"]["remedy"] == "pip install -c constraints.txt -e '.[openvino]'"


def test_a_changed_file_is_a_problem_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    add_model(tmp_path, "compact", linear_onnx(0))
    (tmp_path / "compact" / "model.onnx").write_bytes(linear_onnx(1))
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path))
    code, findings = found(capsys)
    assert code == 1
    assert findings["model compact"]["state"] == "problem"
    assert findings["model compact"]["remedy"] == "cifar10 export compact"


def test_a_wrong_folder_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("CIFAR10_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("CIFAR10_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "empty"))
    monkeypatch.setattr(checks, "CHECKS", (checks.data, checks.models))
    monkeypatch.setattr("cifar10.commands.doctor.CHECKS", (checks.data, checks.models))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 problems"


def test_packages_are_compared_with_the_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"numpy": "2.1", "keras": None}
    monkeypatch.setattr(checks, "_installed", installed.get)
    monkeypatch.setattr(checks, "_pins", lambda _: {"numpy": "2.4"})
    monkeypatch.setattr(
        checks.discovery, "requirements", lambda: [("numpy", ""), ("keras", "train")]
    )
    base, train, constraints = checks.packages()
    assert (base.state, train.state, constraints.state) == ("ok", "missing", "missing")
    assert train.remedy == "pip install -c constraints.txt -e '.[train]'"
    assert "numpy 2.1 (2.4)" in constraints.found


def test_versions_of_an_extra_that_is_not_installed_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fresh virtual environment has its own setuptools, which the extra ``test`` pins."""
    installed = {"numpy": "2.4", "setuptools": "65.5", "pytest": None}
    pins = {"numpy": "2.4", "setuptools": "80.1"}
    required = [("numpy", ""), ("setuptools", "test"), ("pytest", "test")]
    monkeypatch.setattr(checks, "_installed", installed.get)
    monkeypatch.setattr(checks, "_pins", lambda _: pins)
    monkeypatch.setattr(checks.discovery, "requirements", lambda: required)
    assert [one.state for one in checks.packages()] == ["ok", "missing", "ok"]


def test_vnni_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, state in (({"avx2", "avx512_vnni"}, "ok"), ({"avx2"}, "missing")):
        monkeypatch.setattr(checks, "_cpu_flags", lambda flags=flags: (flags, "A processor"))
        (finding,) = checks.processor()
        assert finding.state == state
        assert "VNNI" in finding.found


def test_a_port_in_use_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(checks, "PORT", port)
        (finding,) = checks.port()
        assert finding.found == f"{port} is in use"
        assert finding.remedy.startswith("cifar10 serve --port ")
    (finding,) = checks.port()
    assert finding == Finding("port", "ok", f"{port} is free")
