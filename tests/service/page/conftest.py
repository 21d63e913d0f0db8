"""Fixtures: a server with a table of results, a browser, its page and a file to upload."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar10.environment import EFFICIENCY_FILE
from cifar10.store import ModelStore
from tests.service.page.browser import Page, start_browser
from tests.service.server import (
    Server,
)


def row(model: str, **known: object) -> dict[str, object]:
    """Return a row of the efficiency table; None for fields not given."""
    names = (
        "digest accuracy accuracy_low accuracy_high test_images latency_p50_ms latency_p99_ms "
        "latency_typical_ms http_requests_per_second size_bytes macs parameters_total "
        "provider dataset"
    )
    start = dict.fromkeys(names.split())
    return {
        **start,
        "model": model,
        "digest": "",
        "pareto": [],
        "notes": [],
        "quick": False,
        **known,
    }


def measured(accuracy: float, latency_ms: float) -> dict[str, object]:
    return {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.01,
        "accuracy_high": accuracy + 0.01,
        "latency_p50_ms": latency_ms,
        "latency_typical_ms": latency_ms,
        "latency_p99_ms": 2 * latency_ms,
        "provider": "CPUExecutionProvider",
        "size_bytes": 1_500_000,
    }


ELSEWHERE = {
    "damaged_accuracy": 0.6,
    "elsewhere_dataset": "photographs",
    "elsewhere_images": 388,
    "elsewhere_accuracy": 0.5,
    "elsewhere_low": 0.45,
    "elsewhere_high": 0.55,
    "others_images": 191,
    "others_sure": 0.25,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("page")
    digest = ModelStore(tiny_store).card("tiny_a").sha256
    models = [
        row("tiny_b", **measured(0.91, 3.2), pareto=["latency"], digest="0" * 64),
        row("tiny_a", **measured(0.8, 0.5), **ELSEWHERE, pareto=["latency", "size"], digest=digest),
        row("dominated_model", **measured(0.7, 0.9), recipe="d", precision="fp32", seed=0, seeds=2),
        row("another_seed", **measured(0.72, 0.9), recipe="d", precision="fp32", seed=1, seeds=2),
        row("broken", notes=["failed at latency: out of memory", "not the file in `models/`"]),
    ]
    machine = {"name": "m", "conditions": "Measured on a test.", "models": models}
    (home / EFFICIENCY_FILE).write_text(json.dumps({"machines": [machine]}))
    running = Server(home, tiny_store, CIFAR10_RESULTS=str(home))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def driver():
    browser = start_browser()
    yield browser
    browser.quit()


@pytest.fixture
def page(driver, server: Server) -> Iterator[Page]:
    """Open the page. At the end, check that its console is empty and it contacted no other host."""
    page = Page(driver, server.url)
    page.messages(), page.requests()
    page.open()
    yield page
    assert page.messages() == []
    asked = page.requests()
    assert f"{server.url}/" in asked
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


@pytest.fixture
def file(tmp_path: Path):
    def save(content: bytes, name: str = "picture") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return save
