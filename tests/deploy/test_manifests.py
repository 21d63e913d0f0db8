"""The container file, Compose file and manifests of ``deploy/`` are valid and fit the service.

The resources that Kubernetes itself does not define were validated against the definitions of
KServe 0.20 and the Prometheus operator 0.84 when they were written; here only their pods are.
"""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cifar10.environment import PROJECT_ROOT
from service.settings import Settings

DEPLOY = PROJECT_ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes/overlays").iterdir())


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The resources of a kustomization, as ``kubectl apply --kustomize`` sends them."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def validate(document: dict[str, Any]) -> None:
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(document, version, strict=True)


def pod_spec(resources: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = (one for one in resources if one["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


def script(name: str) -> str:
    return str(Path(sys.prefix) / "bin" / name)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_for_kubernetes(overlay: str):
    resources = rendered(DEPLOY / "kubernetes/overlays" / overlay)
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= {one["kind"] for one in resources}
    for one in resources:
        validate(one)


def test_requests_a_second_can_decide_the_scale(tmp_path: Path):
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/autoscaled/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("# components:", "components:"))
    resources = rendered(overlay.parent)
    (scaler,) = (one for one in resources if one["kind"] == "HorizontalPodAutoscaler")
    validate(scaler)
    assert [one["type"] for one in scaler["spec"]["metrics"]] == ["Pods", "Resource"]
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes/requests/adapter-rule.yaml").read_text())
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert "ServiceMonitor" in {one["kind"] for one in resources}


def test_the_page_s_own_overlay_and_alerts_can_be_applied(tmp_path: Path):
    """The overlay that a reader of docs/fleet.md writes, and the alerts as they send them."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    page = (PROJECT_ROOT / "docs/fleet.md").read_text()
    (overlay,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(overlay)
    resources = rendered(tmp_path / "mine")
    for one in resources:
        validate(one)
        assert one["metadata"]["namespace"] == "cifar10"
    (container,) = pod_spec(resources)["containers"]
    assert re.fullmatch(r"YOUR.REGISTRY/cifar10@sha256:0{64}", container["image"])

    (command,) = re.findall(r"^\(printf.*?\) \|", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", command.removesuffix("|")], cwd=tmp_path, capture_output=True, check=True
    )
    (rule,) = documents(done.stdout.decode())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_take_settings_and_are_evicted_last(overlay: str):
    resources = rendered(DEPLOY / "kubernetes/overlays" / overlay)
    (container,) = pod_spec(resources)["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    page = (PROJECT_ROOT / "docs/fleet.md").read_text()
    for source in container["envFrom"]:
        (reference,) = source.values()
        assert reference["optional"], "a pod must start without it"
        assert f" {reference['name']} " in page
    assert len(container["envFrom"]) == 2
    (budget,) = (one for one in resources if one["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_end_only_when_accepted_work_is_done(overlay: str):
    pod = pod_spec(rendered(DEPLOY / "kubernetes/overlays" / overlay))
    wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = Settings.model_fields["drain_seconds"].default
    assert pod["terminationGracePeriodSeconds"] > wait + drain
    readiness = pod["containers"][0]["readinessProbe"]
    assert wait > readiness["periodSeconds"] * readiness["failureThreshold"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_meet_the_restricted_standard(overlay: str):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pod = pod_spec(rendered(DEPLOY / "kubernetes/overlays" / overlay))
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not pod["automountServiceAccountToken"]
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    ("folder", "protocol"), [("kserve/rest", "v2"), ("kserve/grpc", "grpc-v2")]
)
def test_the_resources_of_kserve_are_valid_and_agree(folder: str, protocol: str):
    found = {one["kind"]: one for one in rendered(DEPLOY / folder)}
    runtime = found["ServingRuntime"]
    spec = runtime["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod})
    model = found["InferenceService"]["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert [model["protocolVersion"]] == spec["protocolVersions"] == [protocol]
    (format_,) = spec["supportedModelFormats"]
    assert model["modelFormat"] == {name: format_[name] for name in ("name", "version")}
    (container,) = spec["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert wait + int(variables["CIFAR10_DRAIN_SECONDS"]) < 30, "Kubernetes' own grace period"
    (port,) = container["ports"]
    if protocol == "v2":
        assert str(port["containerPort"]) == container["args"][-1]
    else:
        assert str(port["containerPort"]) == variables["CIFAR10_GRPC_PORT"]


def test_every_variable_is_a_setting():
    known = {f"CIFAR10_{name.upper()}" for name in Settings.model_fields} | {"CIFAR10_MODELS"}
    files = [path for path in DEPLOY.rglob("*") if path.suffix == ".yaml" or path == DOCKERFILE]
    named = {name for path in files for name in re.findall(r"CIFAR10_[A-Z_]+", path.read_text())}
    assert named
    assert named <= known


def test_compose_is_valid():
    command = [script("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(DEPLOY / "compose.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    drain = Settings.model_fields["drain_seconds"].default
    assert int(services["cifar10"]["stop_grace_period"].removesuffix("s")) > drain
    for one in services.values():
        for volume in one.get("volumes", ()):
            if volume.startswith("."):
                assert (DEPLOY / volume.partition(":")[0]).exists()


def test_the_container_file_passes_its_linter():
    done = subprocess.run([script("hadolint"), str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_container_file_copies_only_what_the_context_has():
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = [source for line in copies for source in line.split()]
    assert len(sources) > 8
    for source in sources:
        assert (PROJECT_ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, one) for one in kept), source


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_has_one_onnx_runtime_and_every_other_dependency(target: str):
    command = [sys.executable, str(DEPLOY / "requirements.py"), target]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    others = [one for one in project["dependencies"] if not one.startswith("onnxruntime")]
    assert set(others) <= set(lines)
    runtimes = {
        re.split(r"[\[>;=]", one)[0] for one in set(lines) - set(others) if "onnxruntime" in one
    }
    assert ("onnxruntime-gpu" in runtimes) == (target == "cuda")
    assert len({one for one in lines if one.startswith("onnxruntime") and ";" not in one}) == (
        target == "cpu"
    )
