"""Debian's Prometheus scrapes the real service: every query finds data, an outage fires."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from bench.load.bodies import encode_png
from bench.serving.process import Server
from cifar10.environment import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy/prometheus"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((PROJECT_ROOT / "deploy/grafana/dashboards/cifar10.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [
    re.sub(r" (>|==) [0-9.]+$", "", alert["expr"]) for alert in ALERTS
]
"""Each query of the dashboard, and each of an alert without its threshold."""
RULE_TESTS = """
rule_files: [alerts.yml]
evaluation_interval: 5s
tests:
  - interval: 5s
    input_series:
      - {series: 'up{job="cifar10", instance="a"}', values: '1x3 0x12'}
      - {series: 'cifar10_ready{instance="a"}', values: '1x3 0x24'}
      - {series: 'cifar10_requests_total{code="200"}', values: '0+1000x240'}
      - {series: 'cifar10_requests_total{code="500"}', values: '0+10x240'}
    alert_rule_test:
      - {eval_time: 40s, alertname: Cifar10ReplicaDown, exp_alerts: []}
      - eval_time: 55s
        alertname: Cifar10ReplicaDown
        exp_alerts:
          - exp_labels: {severity: critical, job: cifar10, instance: a}
            exp_annotations: {summary: a does not answer Prometheus}
      - {eval_time: 70s, alertname: Cifar10NotReady, exp_alerts: []}
      - eval_time: 90s
        alertname: Cifar10NotReady
        exp_alerts:
          - exp_labels: {severity: critical, instance: a}
            exp_annotations: {summary: a is not ready; /readyz says why}
      - eval_time: 10m
        alertname: Cifar10Failing
        exp_alerts:
          - exp_labels: {severity: critical}
            exp_annotations: {summary: 0.9901% of requests fail; none should}
      - {eval_time: 10m, alertname: Cifar10Refusing, exp_alerts: []}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs Debian's package prometheus",
)


def promtool(*arguments: str, folder: Path = FOLDER) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_valid():
    promtool("check", "config", "prometheus.yml")


def test_alerts_fire_after_their_time_and_not_before(tmp_path: Path):
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    (tmp_path / "tests.yml").write_text(RULE_TESTS)
    promtool("test", "rules", "tests.yml", folder=tmp_path)


class Prometheus:
    """Prometheus with the project's rules, made to scrape and to decide every second."""

    def __init__(self, folder: Path, target: str) -> None:
        config = (FOLDER / "prometheus.yml").read_text().replace("cifar10:3000", target)
        (folder / "prometheus.yml").write_text(re.sub(r"_interval: 5s", "_interval: 1s", config))
        rules = re.sub(r"for: \d+[sm]", "for: 1s", (FOLDER / "alerts.yml").read_text())
        (folder / "alerts.yml").write_text(rules)
        self.log = folder / "log"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address=127.0.0.1:0"], cwd=folder, stdout=log, stderr=log
            )
        self.url = ""

    def wait(self) -> None:
        until(lambda: bool(self._port()), self.process)
        self.url = f"http://127.0.0.1:{self._port()}/api/v1"

    def _port(self) -> str:
        found = re.search(r"address=127\.0\.0\.1:([1-9]\d*)", self.log.read_text())
        return found[1] if found else ""

    def query(self, expression: str) -> list[dict[str, Any]]:
        expression = expression.replace("$__rate_interval", "30s")
        answer = httpx.get(f"{self.url}/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]

    def firing(self) -> set[str]:
        alerts = httpx.get(f"{self.url}/alerts").json()["data"]["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "Prometheus has ended"
        assert time.monotonic() < limit, "it did not come to pass within a minute"
        time.sleep(0.1)


def load(url: str) -> None:
    """Send what every panel counts: images, some together, and a refusal."""
    image = encode_png(np.zeros((32, 32, 3), np.uint8))
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.post("/classify", content=image), range(200)))
        assert client.post("/classify", content=b"no image").status_code == 415


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Server, Prometheus]]:
    with Server(PROJECT_ROOT / "models", load=["compact_int8"]) as server:
        found = Prometheus(tmp_path, server.url.removeprefix("http://"))
        try:
            found.wait()
            yield server, found
        finally:
            found.process.terminate()
            found.process.wait(30)


def test_every_query_finds_data_and_an_outage_fires(prometheus: tuple[Server, Prometheus]):
    server, found = prometheus
    missing = {query for query in QUERIES if "cifar10_gpu_" not in query}
    assert len(missing) > 20

    def nothing_is_missing() -> bool:
        load(server.url)
        missing.difference_update([query for query in missing if found.query(query)])
        return not missing

    try:
        until(nothing_is_missing, found.process)
    except AssertionError:
        pytest.fail(f"no data for {sorted(missing)}")
    assert not found.firing() - {"Cifar10Slow", "Cifar10Queueing", "Cifar10Refusing"}
    for process in server.processes():
        process.kill()
    until(lambda: "Cifar10ReplicaDown" in found.firing(), found.process)


def test_queries_about_the_gpu_name_metrics_that_exist():
    source = (PROJECT_ROOT / "service/telemetry/gpu.py").read_text()
    named = {name for query in QUERIES for name in re.findall(r"cifar10_gpu_\w+", query)}
    assert len(named) == 2
    assert all(f'"{name}"' in source for name in named)
