"""Fixtures: a small data set, in memory and as a folder of pictures."""

from pathlib import Path

import pytest

from cifar10 import dataset as dataset_module
from cifar10.dataset import synthetic_arrays
from cifar10.labels import LABELS
from cifar10.sources import RawArrays
from tests.conftest import encode

PER_CLASS = {"train": 10, "test": 3}


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce a complete copy to 100 + 30 images, so that tests can create one."""
    monkeypatch.setattr(dataset_module, "TRAIN_COUNT", 100)
    monkeypatch.setattr(dataset_module, "TEST_COUNT", 30)


@pytest.fixture(scope="module")
def raw() -> RawArrays:
    return synthetic_arrays(PER_CLASS["train"], PER_CLASS["test"], seed=7)


@pytest.fixture
def folder(raw: RawArrays, tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for split, images, labels in (
        ("train", raw.x_train, raw.y_train),
        ("test", raw.x_test, raw.y_test),
    ):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / LABELS[label] / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image))
    return root
