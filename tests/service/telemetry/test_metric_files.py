"""Tests of metric files on a full disk: a worker keeps its metrics private and is not killed."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict

from service.telemetry import metric_files
from service.telemetry.metric_files import INITIAL_BYTES, AllocatedDict
from tests.service.cases import PNG
from tests.service.conftest import make_edge, running
from tests.service.server import (
    Server,
    workers_of,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")


def in_file(path: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}


def fill(numbers: AllocatedDict, count: int) -> dict[str, float]:
    for number in range(count):
        numbers.write_value(f"key {number}", float(number), 0.0)
    return {f"key {number}": float(number) for number in range(count)}


def test_a_file_is_allocated_and_grows(tmp_path):
    path = tmp_path / "counter_1.db"
    numbers = AllocatedDict(str(path))
    assert path.stat().st_blocks * 512 >= INITIAL_BYTES
    expected = fill(numbers, 1_000)
    assert in_file(path) == expected
    assert path.stat().st_blocks * 512 >= path.stat().st_size > INITIAL_BYTES
    numbers.close()
    again = AllocatedDict(str(path))
    assert again.read_value("key 999") == (999.0, 0.0)
    again.close()


@pytest.fixture
def no_room(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(metric_files.os, "posix_fallocate", refuse)


def test_without_space_for_a_file_metrics_stay_in_memory(tmp_path, no_room):
    no_room()
    numbers = AllocatedDict(str(tmp_path / "counter_1.db"))
    fill(numbers, 1_000)
    assert numbers.read_value("key 7") == (7.0, 0.0)
    assert list(tmp_path.iterdir()) == []
    numbers.close()


@pytest.mark.parametrize(("name", "stays"), [("counter_1.db", True), ("gauge_livesum_1.db", False)])
def test_without_space_to_grow_counters_are_frozen_and_gauges_removed(
    tmp_path, no_room, name, stays
):
    path = tmp_path / name
    numbers = AllocatedDict(str(path))
    expected = fill(numbers, 10)
    no_room()
    fill(numbers, 1_000)
    numbers.write_value("key 7", 70.0, 0.0)
    assert numbers.read_value("key 7") == (70.0, 0.0)
    assert path.exists() == stays
    if stays:
        assert expected.items() <= in_file(path).items()
    numbers.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs a file system of its own, which only root may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path) -> None:
    with (disk / "rest").open("wb", buffering=0) as rest:
        try:
            while True:
                rest.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


COUNTING = """
from service.telemetry.metric_files import prepare_metric_files

prepare_metric_files()
from prometheus_client import CollectorRegistry, Counter

counter = Counter("a", "b", ("c",), registry=CollectorRegistry())
for number in range(10_000):
    counter.labels(str(number)).inc()
"""


def test_a_full_disk_kills_no_process(small_disk):
    """With sparse files the process would get SIGBUS here."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(small_disk)}
    for _ in range(2):  # while the disk fills, and when it is full
        done = subprocess.run(
            [sys.executable, "-c", COUNTING], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_a_full_disk_costs_neither_workers_nor_metrics(small_disk, tiny_store):
    server = Server(small_disk, tiny_store)
    try:
        server.wait_until_ready()
        fill_up(small_disk)
        workers = workers_of(server)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for path in ("/models", "/openapi.json", "/v2/models/tiny_a", "/nothing", "/"):
                assert client.get(path).status_code in (200, 404)
            assert client.post("/classify", content=PNG).status_code == 200
            assert 'route="/classify"' in client.get("/metrics").text
        assert workers_of(server) == workers
    finally:
        server.kill()


def test_metrics_without_their_folder_are_503(tiny_store, tmp_path, monkeypatch):
    """systemd removes the folder when the user who started the server logs out."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "nothing"))

    async def main() -> httpx.Response:
        async with running(make_edge(tiny_store)) as client:
            return await client.get("/metrics")

    answer = asyncio.run(main())
    assert answer.status_code == 503
    assert "the metrics folder has been removed" in answer.json()["detail"]
