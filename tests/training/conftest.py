"""Fixtures: models trained once for all tests of training."""

from pathlib import Path

import pytest

from cifar10.store import ModelStore
from tests.training.tiny import TINY, TINY_SCHEDULED, tiny_dataset
from training.run import train


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished training of ``TINY``, seed 0; tests must not change it."""
    root = tmp_path_factory.mktemp("uninterrupted")
    train(TINY, tiny_dataset(), ModelStore(root))
    return root / "tiny"


@pytest.fixture(scope="session")
def uninterrupted_scheduled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same for ``TINY_SCHEDULED``."""
    root = tmp_path_factory.mktemp("uninterrupted_scheduled")
    train(TINY_SCHEDULED, tiny_dataset(), ModelStore(root))
    return root / "tiny_scheduled"
