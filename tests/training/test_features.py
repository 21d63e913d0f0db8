"""Tests of cached features: computed once, resumed after a stop, validated on use."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import training.features
from cifar10.errors import RecipeError
from tests.training.tiny import tiny_dataset
from training.features import FORMAT_VERSION, FeatureKey, Features, extract_features

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATASET = tiny_dataset()
KEY = FeatureKey(
    format_version=FORMAT_VERSION,
    backbone="tiny",
    weights_sha256="0" * 64,
    layer="pooled",
    preprocessing="unit",
    resolution=32,
    dataset_fingerprint=DATASET.record.fingerprint,
    train_count=270,
    validation_count=30,
    keras="3",
    backend="tensorflow",
)


class Counting:
    """Frozen network that counts its images."""

    def __init__(self, factor: float = 1 / 255) -> None:
        image = keras.Input((32, 32, 3), dtype="uint8")
        x = keras.layers.Rescaling(factor)(image)
        self._model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
        self.output = self._model.output
        self.images = 0

    def predict(self, x: Any, **options: object) -> np.ndarray:
        self.images += sum(len(images) for (images,) in x)
        return self._model.predict(x, **options)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.features, "BLOCK", 64)


def right(features: Features) -> None:
    for found, split in (
        (features.train, DATASET.train),
        (features.validation, DATASET.validation),
    ):
        expected = (split.images / 255).mean(axis=(1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        assert found.dtype == np.float16


def test_features_are_computed_once(tmp_path: Path) -> None:
    frozen = Counting()
    told = []
    right(extract_features(tmp_path, KEY, frozen, DATASET, lambda *counts: told.append(counts)))
    assert frozen.images == 300
    assert told[0] == (0, 300)
    assert told[-1] == (300, 300)
    right(extract_features(tmp_path, KEY, frozen, DATASET))
    assert frozen.images == 300


def test_an_interrupted_extraction_continues_at_the_last_complete_block(tmp_path: Path) -> None:
    class Crash(BaseException):
        pass

    def crash(done: int, total: int) -> None:
        if done >= 128:
            raise Crash

    with pytest.raises(Crash):
        extract_features(tmp_path, KEY, Counting(), DATASET, crash)
    frozen = Counting()
    right(extract_features(tmp_path, KEY, frozen, DATASET))
    assert frozen.images == 300 - 128


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FeatureKey)])
def test_another_key_has_other_features(tmp_path: Path, field: str) -> None:
    extract_features(tmp_path, KEY, Counting(), DATASET)
    before = getattr(KEY, field)
    other = dataclasses.replace(KEY, **{field: before + type(before)(1)})
    frozen = Counting()
    extract_features(tmp_path, other, frozen, DATASET)
    assert frozen.images == 300


@pytest.mark.parametrize("damage", ["value", "truncated", "missing", "entry", "foreign key"])
def test_a_mismatched_cache_entry_is_computed_again(tmp_path: Path, damage: str) -> None:
    extract_features(tmp_path, KEY, Counting(), DATASET)
    (folder,) = tmp_path.iterdir()
    file, entry = folder / "train.npy", folder / "entry.json"
    match damage:
        case "value":
            file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
        case "truncated":
            file.write_bytes(file.read_bytes()[:-10])
        case "missing":
            file.unlink()
        case "entry":
            entry.write_text("{")
        case "foreign key":
            entry.write_text(entry.read_text().replace('"tiny"', '"other"'))
    frozen = Counting()
    right(extract_features(tmp_path, KEY, frozen, DATASET))
    assert frozen.images == 300


def test_features_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="too large for half precision"):
        extract_features(tmp_path, KEY, Counting(factor=1e4), DATASET)
