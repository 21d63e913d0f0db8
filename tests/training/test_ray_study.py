"""A study on two Ray nodes, of which one dies, leaves what the plain run leaves."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cifar10.card import TrainingRecord, read_training_record
from cifar10.dataset import load_dataset
from cifar10.store import ModelStore
from tests.ray_nodes import nodes
from training.ray_study import Cluster, run_study_on_ray
from training.recipes.catalogue import find_recipe
from training.study import StudyObserver, StudyRow, plan, run_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("RUN_SLOW" not in os.environ, reason="takes minutes: set RUN_SLOW=1"),
    pytest.mark.filterwarnings("ignore"),
]
RECIPES = ("simple_cnn", "whitened_cnn")
"""Trained with three seeds each: six models."""


def deterministic(path: Path) -> TrainingRecord:
    """The record without times, machine and repetitions."""
    record = read_training_record((path / "training.json").read_bytes())
    cost = replace(
        record.training, seconds=0.0, seconds_per_epoch=(), resumed=0, hardware="", backend=""
    )
    return replace(record, training=cost, created="", commit="", keras_sha256="")


def test_a_study_is_complete_and_the_same_although_a_node_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    dataset = load_dataset("synthetic")
    planned = plan([find_recipe(name) for name in RECIPES], (0, 1, 2), smoke=True)
    plain, far = ModelStore(tmp_path / "plain"), ModelStore(tmp_path / "ray")
    with nodes() as cluster:

        class Killing(StudyObserver):
            def model_finished(self, row: StudyRow) -> None:
                cluster.kill_one()

        where = Cluster(cluster.address)
        rows = run_study_on_ray(
            planned, dataset, far, cluster=where, smoke=True, observer=Killing()
        )
    assert [(row.name, row.error) for row in rows] == [(one.name, None) for one in planned]
    run_study(planned, dataset, plain, smoke=True)
    for one in planned:
        names = {path.name for path in plain.folder(one.name).iterdir()}
        assert {path.name for path in far.folder(one.name).iterdir()} == names
        assert deterministic(far.folder(one.name)) == deterministic(plain.folder(one.name))
