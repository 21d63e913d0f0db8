"""Tests that dead workers' counts stay in the sums while their files are removed."""

import errno
import fcntl
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry import metric_sums
from service.telemetry.metric_files import AllocatedDict
from service.telemetry.metric_sums import add_up_dead, whole_files
from tests.service.cases import PNG
from tests.service.server import (
    Server,
    folder_of,
    wait_for,
    workers_of,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are locked with flock")

LIVING = 999


def is_alive(process: int) -> bool:
    return process == LIVING


def count(folder: Path, process: int, route: str, value: float) -> None:
    """Leave what a process that counted ``value`` requests leaves."""
    keys = {
        "counter": [mmap_key("a", "a_total", ["route"], [route], "Requests.")],
        "histogram": [
            mmap_key("b", "b_bucket", ["route", "le"], [route, bound], "Seconds.")
            for bound in ("1.0", "+Inf")
        ]
        + [mmap_key("b", "b_sum", ["route"], [route], "Seconds.")],
    }
    for kind, names in keys.items():
        numbers = AllocatedDict(str(folder / f"{kind}_{process}.db"))
        for name in names:
            numbers.write_value(name, value, 0.0)
        numbers.close()


def rendered(folder: Path) -> list[str]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return sorted(generate_latest(registry).decode().splitlines())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_crash_loop_leaves_one_file_of_each_kind_and_every_count(tmp_path: Path):
    count(tmp_path, LIVING, "/classify", 3)
    for process in range(1, 11):
        count(tmp_path, process, "/classify" if process % 2 else "größer", process)
        before = rendered(tmp_path)
        assert add_up_dead(tmp_path, is_alive)
        assert rendered(tmp_path) == before
    living = {f"counter_{LIVING}.db", f"histogram_{LIVING}.db"}
    assert names_in(tmp_path) == living | {"counter_ended.db", "histogram_ended.db"}
    assert 'a_total{route="/classify"} 28.0' in rendered(tmp_path)


def test_metric_files_are_not_merged_while_they_are_read(tmp_path: Path):
    count(tmp_path, 1, "/classify", 1)
    with whole_files(tmp_path):
        with whole_files(tmp_path):  # readers do not exclude each other
            assert not add_up_dead(tmp_path, is_alive)
        assert "counter_1.db" in names_in(tmp_path)
    assert add_up_dead(tmp_path, is_alive)


def test_a_reader_does_not_wait_for_ever(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(metric_sums, "READ_SECONDS", 0.0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="locked"), whole_files(tmp_path):
            pass
    finally:
        os.close(descriptor)


def test_without_space_no_file_is_removed(tmp_path: Path, monkeypatch):
    count(tmp_path, 1, "/classify", 1)
    before = names_in(tmp_path)

    def refuse(path: Path, numbers: dict[str, float]) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(metric_sums, "_write", refuse)
    assert not add_up_dead(tmp_path, is_alive)
    assert names_in(tmp_path) == before


def test_a_file_of_a_process_that_died_without_space_is_removed(tmp_path: Path):
    (tmp_path / "counter_1.db").touch()
    assert add_up_dead(tmp_path, is_alive)
    assert names_in(tmp_path) == {"counter_ended.db"}
    assert rendered(tmp_path) == []


def test_a_missing_folder_has_nothing_to_merge(tmp_path: Path):
    assert add_up_dead(tmp_path / "gone", is_alive)


def classified(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    found = re.search(r"^cifar10_images_classified_total\{.*\} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_killed_workers_leave_their_counts_and_no_files(tmp_path: Path, tiny_store: Path):
    server = Server(tmp_path, tiny_store, CIFAR10_WORKERS="1")
    try:
        server.wait_until_ready()
        folder = folder_of(server) / "metrics"
        for number in range(1, 4):
            assert httpx.post(f"{server.url}/classify", content=PNG).status_code == 200
            (worker,) = workers_of(server)
            wait_for(lambda: classified(server) == number, "the count is written")  # noqa: B023
            os.kill(worker, signal.SIGKILL)
            wait_for(
                lambda: f"counter_{worker}.db" not in names_in(folder),  # noqa: B023
                "the file of the killed worker is removed",
            )
            server.wait_until_ready()
            assert classified(server) == number
        counters = {name for name in names_in(folder) if name.startswith("counter_")}
        assert counters <= {
            "counter_ended.db",
            *(f"counter_{pid}.db" for pid in workers_of(server)),
        }
    finally:
        server.kill()
