"""Fixtures: the device of these tests, and the released models."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cifar10.environment import PROJECT_ROOT
from cifar10.errors import Cifar10Error
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore, StoredModel

DEVICE = os.environ.get("GPU_TEST_DEVICE", "cuda")
STORE = ModelStore(PROJECT_ROOT / "models")
NAMES = STORE.names()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cuda)


@pytest.fixture(scope="session", autouse=True)
def _device() -> None:
    """Skip all tests, with ONNX Runtime's reason, if the device cannot execute."""
    try:
        Predictor(STORE.load("compact").onnx, PredictorOptions(device=DEVICE))
    except Cifar10Error as error:
        pytest.skip(f"no session on {DEVICE}: {error}")


@pytest.fixture(scope="session")
def device() -> str:
    """Return ``cuda``, or ``cpu`` in a rehearsal."""
    return DEVICE


@pytest.fixture(params=NAMES)
def stored(request: pytest.FixtureRequest) -> StoredModel:
    """Return each released model in turn."""
    return STORE.load(request.param)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Return 512 smooth generated images, uint8 (512, 32, 32, 3), RGB; no data set is needed."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (512, 5, 5, 3)).astype(np.float32)
    at = np.linspace(0, 4, 32)
    low, share = np.minimum(at.astype(int), 3), (at - np.minimum(at.astype(int), 3))
    rows = coarse[:, low] * (1 - share)[None, :, None, None]
    rows += coarse[:, low + 1] * share[None, :, None, None]
    smooth = rows[:, :, low] * (1 - share)[None, None, :, None]
    smooth += rows[:, :, low + 1] * share[None, None, :, None]
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
