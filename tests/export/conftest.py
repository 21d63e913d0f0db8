"""Fixtures for tests of exported graphs."""

import shutil
from pathlib import Path

import pytest

from cifar10.dataset import Dataset
from cifar10.store import ModelStore
from export.run import export_model
from tests.training.tiny import TINY, tiny_dataset
from training.run import train


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    root = tmp_path_factory.mktemp("exported")
    train(TINY, dataset, ModelStore(root))
    export_model("tiny", ModelStore(root), dataset)
    (root / "tiny" / "model.keras").unlink()  # a variant needs none of it
    (root / "tiny" / "training.json").unlink()
    return root


@pytest.fixture
def store(exported: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(exported, tmp_path / "models")
    return ModelStore(tmp_path / "models")
