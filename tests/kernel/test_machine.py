"""Cores by affinity and control-group quota, the CPU's name, memory: one definition for all."""

import os
from math import inf
from pathlib import Path

import pytest

import bench.rows.machine
from cifar10 import machine
from cifar10.machine import cpu_name, cpu_quota, rounded_memory_gib, usable_cores, usable_cpus


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
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr(machine, "usable_cpus", lambda: (0, 1, 2, 3))
    assert usable_cores() == (cores or 4)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's affinity")
def test_affinity_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_measuring_counts_cores_as_serving_does(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(machine, "usable_cpus", lambda: tuple(range(8)))
    assert bench.rows.machine.read_machine().logical_cores == 1


def test_the_cpu_s_name(tmp_path, monkeypatch):
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    monkeypatch.setattr(machine, "CPU_INFORMATION", information)
    assert cpu_name() == "Some CPU @ 2 GHz"
    information.unlink()
    assert cpu_name()


def test_memory_that_a_new_kernel_reserves_does_not_change_the_machine():
    assert rounded_memory_gib(25_200_000_000) == rounded_memory_gib(25_190_000_000) == 23
    assert usable_cpus() == tuple(sorted(usable_cpus()))
