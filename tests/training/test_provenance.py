"""Tests of the machine in a training record."""

from cifar10 import machine
from training import provenance


def test_training_counts_cores_as_serving_does(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(machine, "usable_cpus", lambda: tuple(range(8)))
    assert ", 1 cores" in provenance.hardware()
