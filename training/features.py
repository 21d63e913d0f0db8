"""Feature cache: a frozen network runs once over the images instead of once per epoch.

``<cache>/features/<digest of the key>/`` holds float16 features of the training and validation
images, to be memory-mapped, and ``entry.json``: the whole key, how many rows are done and, once all
are, each file's SHA-256. An interrupted extraction continues from the last whole block. An
entry that does not match its key, size or digests is discarded and computed again.

Half precision keeps 11 bits: features are within 0.05 % of the network's outputs.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.dataset import Dataset
from cifar10.errors import RecipeError
from cifar10.records import RecordError, from_json, to_json
from cifar10.store import file_sha256, write_atomic
from training import batches

logger = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1

BLOCK: Final = 2_048
"""Number of images between the points at which an extraction can resume."""

EXTRACTION_BATCH: Final = 256
"""Batch size of the frozen network."""

_ENTRY_FILE: Final = "entry.json"

_SPLITS: Final = ("train", "validation")

ExtractionProgress = Callable[[int, int], None]
"""Callback with the number of finished images and the total."""


@dataclass(frozen=True)
class FeatureKey:
    """Key of a cache entry: everything that determines the features."""

    format_version: int
    backbone: str
    weights_sha256: str
    """Digest of the frozen part's weights in memory."""
    layer: str
    """Name of the layer whose outputs are the features."""
    preprocessing: str
    resolution: int
    dataset_fingerprint: str
    train_count: int
    validation_count: int
    """Number of validation images, from the first on; a smoke form uses fewer."""
    keras: str
    backend: str


@dataclass(frozen=True)
class Features:
    """Cached features, float16 (N, ...), memory-mapped, in the order of the dataset's splits."""

    train: NDArray[np.float16]
    validation: NDArray[np.float16]
    seconds: float
    """Time to compute them, over all interruptions."""


@dataclass(frozen=True)
class _Entry:
    key: FeatureKey
    rows: dict[str, int]
    """Number of rows on disk, by split."""
    sha256: dict[str, str]
    """Digest of each split's file; empty until all rows are on disk."""
    seconds: float


def extract_features(
    root: Path,
    key: FeatureKey,
    frozen: keras.Model,
    dataset: Dataset,
    progress: ExtractionProgress = lambda done, total: None,
) -> Features:
    """Return the features under ``root``, computing the missing ones.

    Args:
        root: cache folder; created if missing.
        key: key of the features.
        frozen: network, uint8 (N, 32, 32, 3) → one tensor of features.
        dataset: data set with the training and validation images.
        progress: receives the progress after every block.

    Raises:
        RecipeError: a feature is not finite, or too large for half precision.
    """
    folder = root / hashlib.sha256(to_json(key).encode()).hexdigest()[:16]
    images = {"train": dataset.train.images, "validation": dataset.validation.images}
    shape = tuple(int(size) for size in frozen.output.shape[1:])
    expected = {name: (len(images[name]), *shape) for name in _SPLITS}
    entry = _usable_entry(folder, key, expected)
    if entry is None:
        entry = _start(folder, key, expected)
    if not entry.sha256:
        entry = _extract(folder, entry, frozen, images, progress)
    arrays = {name: np.load(_file(folder, name), mmap_mode="r") for name in _SPLITS}
    return Features(**arrays, seconds=entry.seconds)


def _usable_entry(
    folder: Path, key: FeatureKey, expected: dict[str, tuple[int, ...]]
) -> _Entry | None:
    try:
        entry = from_json(_Entry, (folder / _ENTRY_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except RecordError as error:
        logger.warning("the features in %s are unusable (%s); computing again", folder, error)
        return None
    reason = _mismatch(folder, entry, key, expected)
    if reason is not None:
        logger.warning("the features in %s are unusable (%s); computing again", folder, reason)
        return None
    return entry


def _mismatch(
    folder: Path, entry: _Entry, key: FeatureKey, expected: dict[str, tuple[int, ...]]
) -> str | None:
    if entry.key != key:
        return "they are of something else"
    for name in _SPLITS:
        try:
            array = np.load(_file(folder, name), mmap_mode="r")
        except (OSError, ValueError) as error:
            return f"{name}: {error}"
        if array.shape != expected[name] or array.dtype != np.float16:
            return f"{name} is {array.dtype} {array.shape}, expected float16 {expected[name]}"
        if not 0 <= entry.rows.get(name, -1) <= len(array):
            return f"{name} claims {entry.rows.get(name)} rows of {len(array)}"
        if entry.sha256 and file_sha256(_file(folder, name)) != entry.sha256.get(name):
            return f"{name} is not the file that was written"
    return None


def _start(folder: Path, key: FeatureKey, expected: dict[str, tuple[int, ...]]) -> _Entry:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name in _SPLITS:
        array = _open(folder, name, "w+", expected[name])
        array.flush()
    entry = _Entry(key, dict.fromkeys(_SPLITS, 0), {}, 0.0)
    _write(folder, entry)
    return entry


def _extract(
    folder: Path,
    entry: _Entry,
    frozen: keras.Model,
    images: dict[str, NDArray[np.uint8]],
    progress: ExtractionProgress,
) -> _Entry:
    started = time.perf_counter() - entry.seconds
    rows = dict(entry.rows)
    total = sum(len(images[name]) for name in _SPLITS)
    progress(sum(rows.values()), total)
    for name in _SPLITS:
        array = _open(folder, name, "r+")
        for start in range(rows[name], len(array), BLOCK):
            block = images[name][start : start + BLOCK]
            features = batches.predict(frozen, block, EXTRACTION_BATCH)
            array[start : start + len(block)] = _halved(features, entry.key)
            array.flush()
            rows[name] = start + len(block)
            seconds = time.perf_counter() - started
            _write(folder, _Entry(entry.key, rows, {}, seconds))
            progress(sum(rows.values()), total)
    digests = {name: file_sha256(_file(folder, name)) for name in _SPLITS}
    complete = _Entry(entry.key, rows, digests, time.perf_counter() - started)
    _write(folder, complete)
    return complete


def _write(folder: Path, entry: _Entry) -> None:
    write_atomic(folder / _ENTRY_FILE, to_json(entry))


def _halved(features: NDArray[np.float32], key: FeatureKey) -> NDArray[np.float16]:
    highest = float(np.abs(features).max())
    if not highest <= float(np.finfo(np.float16).max):  # NaN compares as false
        message = (
            f"a feature of {key.backbone} after {key.layer} is {highest:g}, too large for half "
            "precision or not a number: the weights do not go with the preprocessing"
        )
        raise RecipeError(message)
    return features.astype(np.float16)


def _open(folder: Path, name: str, mode: Any, shape: tuple[int, ...] | None = None) -> Any:
    return np.lib.format.open_memmap(
        _file(folder, name), mode=mode, dtype=None if shape is None else np.float16, shape=shape
    )


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
