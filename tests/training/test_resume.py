"""Tests that a training killed at any moment ends with the same result as an uninterrupted one."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.dataset import Dataset
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import Cifar10Error, RecipeError, StoreError
from cifar10.store import ModelStore
from tests.training.tiny import TINY, TINY_RECIPES, tiny_dataset, tiny_study
from training.history import EpochRow
from training.observer import Observer
from training.recipes.schema import with_epochs
from training.run import train
from training.study import run_study

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATASET = tiny_dataset()


def weights(folder: Path) -> list[np.ndarray]:
    return keras.saving.load_model(folder / "model.keras", compile=False).get_weights()


def same_training(found: Path, expected: Path) -> None:
    for ours, theirs in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    numbers = [
        [line.split(",")[:5] for line in (folder / "history.csv").read_text().splitlines()]
        for folder in (found, expected)
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("name", ["tiny", "tiny_scheduled"])
def test_killed_twice_in_the_middle_of_an_epoch(
    name: str, tmp_path: Path, uninterrupted: Path, uninterrupted_scheduled: Path
) -> None:
    recipe = TINY_RECIPES[name]
    for epoch, step in ((2, 5), (4, 3)):  # in either phase, where there are two
        command = [
            sys.executable,
            "-m",
            "tests.training.tiny",
            str(tmp_path),
            f"{epoch}",
            f"{step}",
            name,
        ]
        killed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / name / "training.json").exists()
    record = train(recipe, DATASET, ModelStore(tmp_path)).record
    assert record.training.resumed == 2
    expected = uninterrupted if recipe is TINY else uninterrupted_scheduled
    same_training(tmp_path / name, expected)
    assert sorted(entry.name for entry in (tmp_path / name).iterdir()) == [
        "history.csv",
        "model.keras",
        "training.json",
    ]


def test_a_study_killed_twice_is_complete_after_the_third_run(
    tmp_path: Path, uninterrupted: Path, uninterrupted_scheduled: Path
) -> None:
    for name, epoch, step in (("tiny_scheduled", 3, 4), ("tiny_seed1", 2, 2)):
        command = [sys.executable, "-m", "tests.training.tiny", str(tmp_path)]
        command += [str(epoch), str(step), name, "study"]
        killed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / name / "training.json").exists()
    rows = run_study(tiny_study(), DATASET, ModelStore(tmp_path))
    assert [(row.name, row.error, row.already_there) for row in rows] == [
        ("tiny", None, True),
        ("tiny_scheduled", None, True),
        ("tiny_seed1", None, False),
        ("tiny_scheduled_seed1", None, False),
    ]
    assert [row.record.training.resumed for row in rows if row.record] == [0, 1, 1, 0]
    same_training(tmp_path / "tiny", uninterrupted)
    same_training(tmp_path / "tiny_scheduled", uninterrupted_scheduled)


class Crash(BaseException):
    """End of the process; the code under test must not catch it."""


def test_stopped_between_any_two_files(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends the process before or after each file is put in place, a later one each time."""
    replace = Path.replace
    allowed = 0

    def crashing(self: Path, target: Path) -> Path:
        nonlocal allowed
        allowed -= 1
        if allowed == -1 and attempt % 2 == 0:
            raise Crash(target)
        replace(self, target)
        if allowed == -1:
            raise Crash(target)
        return target

    monkeypatch.setattr(Path, "replace", crashing)
    for attempt in range(30):
        allowed = attempt
        try:
            train(TINY, DATASET, ModelStore(tmp_path))
        except Crash:
            continue
        break
    assert attempt >= 3, "it has not crashed often enough to show anything"
    same_training(tmp_path / "tiny", uninterrupted)


class Stopped(Observer):
    """Observer that ends the training after an epoch."""

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        if row.epoch == 2:
            raise Crash


@pytest.fixture(scope="module")
def half_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("half_way")
    with pytest.raises(Crash):
        train(TINY, DATASET, ModelStore(root), observer=Stopped())
    return root


@pytest.mark.parametrize("change", ["seed", "recipe", "dataset"])
def test_a_checkpoint_of_another_training_is_refused(
    half_way: Path, tmp_path: Path, change: str
) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    other = Dataset(
        DATASET.train,
        DATASET.validation,
        DATASET.test,
        dataclasses.replace(DATASET.record, fingerprint="f" * 64),
        DATASET.labels,
    )
    with pytest.raises(RecipeError, match="--restart"):
        train(
            with_epochs(TINY, 1) if change == "recipe" else TINY,
            other if change == "dataset" else DATASET,
            ModelStore(tmp_path),
            seed=1 if change == "seed" else 0,
        )
    assert (tmp_path / "tiny" / "checkpoint" / "state.json").exists()


def test_restart_takes_another_training(half_way: Path, tmp_path: Path) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    record = train(with_epochs(TINY, 1), DATASET, ModelStore(tmp_path), seed=1, restart=True).record
    assert (record.seed, record.training.epochs, record.training.resumed) == (1, 2, 0)


@pytest.mark.parametrize("damage", ["model", "state", "missing"])
def test_a_damaged_checkpoint_is_refused(half_way: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(half_way, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "tiny" / "checkpoint"
    if damage == "state":
        (checkpoint / "state.json").write_text("{")
    for file in checkpoint.glob("*.keras"):
        if damage == "model":
            file.write_bytes(file.read_bytes()[:-1])
        elif damage == "missing":
            file.unlink()
    with pytest.raises(StoreError, match="--restart"):
        train(TINY, DATASET, ModelStore(tmp_path))


def test_a_finished_model_is_not_trained_again(uninterrupted: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in uninterrupted.iterdir()}
    outcome = train(TINY, DATASET, ModelStore(uninterrupted.parent))
    assert outcome.already_there
    assert before == {file: file.stat().st_mtime_ns for file in uninterrupted.iterdir()}
    with pytest.raises(RecipeError, match="seed is 0 there, 1 asked for"):
        train(TINY, DATASET, ModelStore(uninterrupted.parent), seed=1)


def test_a_changed_model_file_is_not_accepted_as_finished(
    uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "tiny")
    (tmp_path / "tiny" / "model.keras").write_bytes(b"something else")
    with pytest.raises(Cifar10Error, match="SHA-256"):
        train(TINY, DATASET, ModelStore(tmp_path))
