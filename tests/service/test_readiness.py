"""Tests of readiness: every model is loaded, warmed up, and gives its golden answer."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import pytest

from cifar10.environment import PROJECT_ROOT
from cifar10.errors import DigestMismatchError, ModelNotFoundError, SettingsError
from cifar10.store import ModelStore
from service.choice import choose
from service.edge import Edge
from service.models import ModelSet
from service.settings import Settings, read_settings
from service.workers.preflight import check_before_start
from tests.conftest import add_model, linear_onnx
from tests.service.cases import PNG
from tests.service.conftest import make_edge, nothing_behind, running
from tests.service.stores import spoil_digest, spoil_golden


@pytest.fixture
def store(tmp_path):
    for seed, name in enumerate(("tiny_a", "tiny_b")):
        add_model(tmp_path, name, linear_onnx(seed))
    return tmp_path


def ask(edge: Edge):
    async def main():
        async with running(edge) as client:
            return (
                await client.get("/readyz"),
                await client.get("/livez"),
                await client.post("/classify?model=tiny_b", content=PNG),
                await client.post("/classify?model=tiny_a", content=PNG),
            )

    return asyncio.run(main())


def test_ready_names_the_models(tiny_store):
    ready, live, _, _ = ask(make_edge(tiny_store))
    assert (ready.status_code, live.status_code) == (200, 200)
    assert ready.json() == {
        "status": "ready",
        "models": ["tiny_a", "tiny_b"],
        "workers": {"ready": 1, "of": 1},
    }


@pytest.mark.parametrize(
    ("spoil", "reason"), [(spoil_golden, "golden images"), (spoil_digest, "SHA-256")]
)
def test_one_bad_model_keeps_the_server_unready(store, spoil, reason):
    spoil(store)
    ready, live, unfit, fit = ask(make_edge(store))
    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    assert list(ready.json()["models"]) == ["tiny_b"]
    assert reason in ready.json()["models"]["tiny_b"]
    assert live.status_code == 200
    assert unfit.status_code == 503
    assert unfit.json()["type"].endswith("not-ready")
    assert fit.status_code == 200


@pytest.mark.parametrize("ready", [True, False])
def test_metrics_say_whether_the_server_is_ready(store, ready):
    if not ready:
        spoil_digest(store)

    async def metrics():
        async with running(make_edge(store)) as client:
            return (await client.get("/metrics")).text

    lines = asyncio.run(metrics()).splitlines()
    assert f"cifar10_ready {ready:d}" in lines
    assert f"cifar10_workers_ready {ready:d}" in lines


def test_unready_while_loading(store, monkeypatch):
    settings = Settings(device="cpu", default_model="tiny_a")
    models = ModelSet(settings, ModelStore(store))
    monkeypatch.setattr(models, "load_all", lambda *_: None)
    edge = Edge(nothing_behind, settings, models)
    models.unfit = dict.fromkeys(models.names, "not yet")
    ready, live, answer, _ = ask(edge)
    assert (ready.status_code, live.status_code, answer.status_code) == (503, 200, 503)
    assert "retry-after" in answer.headers


def test_the_supervisor_refuses_a_file_that_its_card_does_not_describe(store):
    spoil_digest(store)
    with pytest.raises(DigestMismatchError, match="tiny_b"):
        check_before_start(Settings(device="cpu", default_model="tiny_a"), ModelStore(store))


def test_the_default_model(store):
    assert choose(Settings(default_model="tiny_b"), ModelStore(store)).default == "tiny_b"
    assert choose(Settings(load=("tiny_b",)), ModelStore(store)).default == "tiny_b"
    with pytest.raises(ModelNotFoundError, match=r"'compact_int8'.*tiny_a, tiny_b"):
        choose(Settings(device="cpu"), ModelStore(store))
    with pytest.raises(ModelNotFoundError, match=r"'other'.*tiny_a, tiny_b"):
        choose(Settings(load=("other",)), ModelStore(store))
    with pytest.raises(ModelNotFoundError, match="no model in"):
        choose(Settings(), ModelStore(store / "nowhere"))


@pytest.mark.parametrize(
    ("names", "on_cpu", "on_cuda"),
    [
        (("compact", "compact_int8", "tiny_a"), "compact_int8", "compact"),
        (("compact", "tiny_a"), "compact", "compact"),
        (("compact_int8",), "compact_int8", "compact_int8"),
        (("compact_int8", "tiny_a"), "compact_int8", "compact_int8"),
    ],
)
def test_the_default_model_is_the_one_for_the_device(tmp_path, names, on_cpu, on_cuda):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").touch()
    assert choose(Settings(device="cpu"), ModelStore(tmp_path)).default == on_cpu
    assert choose(Settings(device="cuda"), ModelStore(tmp_path)).default == on_cuda


def test_a_variant_of_an_older_file_is_not_the_default(tmp_path, caplog):
    source = add_model(tmp_path, "compact", linear_onnx(0))
    add_model(tmp_path, "compact_int8", linear_onnx(1), variant_of=source)
    settings = Settings(device="cpu")
    assert choose(settings, ModelStore(tmp_path)).default == "compact_int8"
    assert not caplog.records
    add_model(tmp_path, "compact", linear_onnx(2))  # exported anew
    assert choose(settings, ModelStore(tmp_path)).default == "compact"
    assert "cifar10 export compact --int8" in caplog.text
    shutil.rmtree(tmp_path / "compact")  # the variant alone is as good as any
    assert choose(settings, ModelStore(tmp_path)).default == "compact_int8"


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CIFAR10_LOAD", "tiny_a, tiny_b")
    monkeypatch.setenv("CIFAR10_QUEUE_BOUND", "7")
    settings = read_settings()
    assert settings.load == ("tiny_a", "tiny_b")
    assert settings.queue_bound == 7


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CIFAR10_DEVICE", "gpu", "'auto', 'cpu' or 'cuda'"),
        ("CIFAR10_WORKERS", "0", "greater than or equal to 1"),
        ("CIFAR10_DEVCIE", "cuda", "Did you mean CIFAR10_DEVICE"),
        ("CIFAR10_PORT", "3000", "which is not a setting"),
        ("CIFAR10_SERVICE_HOST", "example.org", "which is not a setting"),
        ("CIFAR10_WORKERS_PORT", "2", "which is not a setting"),
        ("CIFAR10_TOKEN", " ", "without surrounding spaces or line ends"),
        ("CIFAR10_TOKEN", "secret\n", "without surrounding spaces or line ends"),
        ("CIFAR10_ADMIN_TOKEN", "se\tcret", "control characters"),
    ],
)
def test_the_error_names_a_wrong_setting(monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says) as caught:
        read_settings()
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "service", ["CIFAR10", "CIFAR10_EFFICIENCY", "CIFAR10_API", "CIFAR10_TOKEN"]
)
def test_variables_that_kubernetes_sets_for_a_service_are_ignored(monkeypatch, service):
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "3000",
        "SERVICE_PORT_HTTP": "3000",
        "PORT": "tcp://10.0.0.1:3000",
        "PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "PORT_3000_TCP_PROTO": "tcp",
        "PORT_3000_TCP_PORT": "3000",
        "PORT_3000_TCP_ADDR": "fd00::1",
    }.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert read_settings().token is None


def test_a_service_named_like_a_setting_leaves_its_default(monkeypatch):
    class WithPort(Settings):
        grpc_port: int = 3001

    monkeypatch.setenv("CIFAR10_GRPC_PORT", "tcp://10.0.0.1:3000")  # a Service named cifar10-grpc
    assert WithPort().grpc_port == 3001
    monkeypatch.setenv("CIFAR10_GRPC_PORT", "3005")
    assert WithPort().grpc_port == 3005


def test_a_refused_token_is_not_shown(monkeypatch):
    monkeypatch.setenv("CIFAR10_TOKEN", "secret ")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert "secret" not in str(caught.value)


def test_importing_the_service_imports_no_training_framework():
    code = (
        "import json, sys, service.app; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, cwd=PROJECT_ROOT, env=dict(os.environ), text=True)
    loaded = set(json.loads(output.splitlines()[-1]))
    assert "bentoml" in loaded
    assert not loaded & {"tensorflow", "keras", "tf2onnx", "torch"}
