"""Read and validate CIFAR-10 from any of the forms in which it is distributed.

- an image folder: ``train/<class>/*`` and ``test/<class>/*`` (JPEG, PNG or WebP, 32×32). Links are
  followed, and files that operating systems leave in folders are ignored.
- a tar (plain, gz, bz2, xz) or zip of such a folder, read without unpacking it to disk
- the official ``cifar-10-batches-py`` folder, or its archive
- an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``

Every error names the file and the remedy. The official batches are pickles; they are read by an
unpickler that accepts only NumPy arrays, so no code in them is executed.
"""

import hashlib
import io
import logging
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import DataError, DatasetNotFoundError, ImageError, UnsupportedImageError
from cifar10.formats.recognise import image_format
from cifar10.images import decode_tile
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS
from cifar10.members import FETCH_AGAIN, IMAGE_SUFFIXES, Member, members, naming_faults, shown

Progress = Callable[[int, int], None]
"""Progress callback, called with (images done, images expected)."""

TRAIN_COUNT: Final = 50_000
TEST_COUNT: Final = 10_000

OFFICIAL_MD5: Final = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""MD5 of the official batch files, as torchvision's CIFAR10 dataset publishes them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawArrays:
    """The dataset as read from its source, before splitting.

    ``x_*``: uint8 (N, 32, 32, 3), RGB, 0–255. ``y_*``: uint8 (N,), class ids 0–9.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]
    official: bool = False
    """Whether these are the official files, verified by their checksums."""


def read_source(path: Path, progress: Progress | None = None) -> RawArrays:
    """Read the dataset at ``path``, in any of the known forms.

    Raises:
        DatasetNotFoundError: there is nothing at ``path``.
        DataError: the form is unknown, or the data is incomplete or damaged.
    """
    if not path.exists():
        message = f"there is no dataset at {path}; see `cifar10 data --help`"
        raise DatasetNotFoundError(message)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    with naming_faults(path):
        return _Collector(path, progress).collect(members(path, _wanted))


def _wanted(name: PurePosixPath) -> bool:
    return name.name in OFFICIAL_MD5 or _split_of(name) is not None


def _split_of(name: PurePosixPath) -> str | None:
    """Return ``train`` or ``test`` for ``[.../]train/<class>/<file>``, otherwise None."""
    parts = name.parts
    return parts[-3] if len(parts) >= 3 and parts[-3] in ("train", "test") else None


class _Collector:
    """Collects images, or official batches, from the members of a folder or an archive."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.path = path
        self.progress = progress
        self.images: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
        self.labels: dict[str, list[int]] = {"train": [], "test": []}
        self.batches: dict[str, bytes] = {}
        self.skipped: list[str] = []

    def collect(self, files: Iterator[Member]) -> RawArrays:
        done = 0
        for name, data in files:
            if name.name in OFFICIAL_MD5:
                self.batches[name.name] = data
                continue
            if not self._add_image(name, data):
                continue
            done += 1
            if self.progress is not None:
                self.progress(done, TRAIN_COUNT + TEST_COUNT)
        if self.skipped:
            first = ", ".join(self.skipped[:3])
            logger.warning(
                "%s: skipped %d files that are not pictures, such as %s",
                shown(self.path),
                len(self.skipped),
                first,
            )
        if self.batches:
            return _read_batches(self.path, self.batches)
        if done == 0:
            message = (
                f"{self.path} holds no dataset: expected train/<class>/* and test/<class>/*, "
                "or the official cifar-10-batches-py files"
            )
            raise DataError(message)
        return RawArrays(
            self._stack("train"),
            np.array(self.labels["train"], np.uint8),
            self._stack("test"),
            np.array(self.labels["test"], np.uint8),
        )

    def _stack(self, split: str) -> NDArray[np.uint8]:
        images = self.images[split]
        return np.stack(images) if images else np.empty((0, *IMAGE_SHAPE), np.uint8)

    def _add_image(self, name: PurePosixPath, data: bytes) -> bool:
        """Add one picture. Return False for a file whose content and name are not a picture's."""
        if name.suffix.lower() not in IMAGE_SUFFIXES and not _is_image(data):
            self.skipped.append(shown(name))
            return False
        split, label = name.parts[-3], name.parts[-2]
        if label not in LABELS:
            message = (
                f"{shown(self.path)}: {shown(name)} is in an unknown class folder "
                f"{shown(label)!r}; "
                f"expected one of {', '.join(LABELS)}"
            )
            raise DataError(message)
        try:
            image = decode_tile(data)
        except ImageError as error:
            message = f"{shown(self.path)}: {shown(name)}: {error}. Replace or remove the file."
            raise DataError(message) from error
        self.images[split].append(image)
        self.labels[split].append(LABELS.index(label))
        return True


def _is_image(data: bytes) -> bool:
    try:
        image_format(data)
    except UnsupportedImageError:
        return False
    return True


def _read_npz(path: Path) -> RawArrays:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                message = f"{path} lacks {', '.join(missing)}; expected {', '.join(names)}"
                raise DataError(message)
            arrays = [archive[name] for name in names]
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        message = f"{shown(path)}: {error}. {FETCH_AGAIN}"
        raise DataError(message) from error
    return checked_arrays(str(path), *arrays)


def checked_arrays(source: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> RawArrays:
    """Return the arrays as a dataset after checking their types, shapes and label range.

    Labels may be (N,) or (N, 1) of any integer type, as Keras returns them.

    Raises:
        DataError: an array is wrong; the message names it.
    """
    checked = []
    for split, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
            message = (
                f"{source}: x_{split} is {images.dtype} {images.shape}, expected uint8 "
                "(N, 32, 32, 3)"
            )
            raise DataError(message)
        flat = labels.reshape(-1)
        if not np.issubdtype(flat.dtype, np.integer) or len(flat) != len(images):
            message = (
                f"{source}: y_{split} is {labels.dtype} {labels.shape}, expected "
                f"{len(images)} integers"
            )
            raise DataError(message)
        if len(flat) and (flat.min() < 0 or flat.max() >= CLASS_COUNT):
            message = (
                f"{source}: y_{split} has labels from {flat.min()} to {flat.max()}, expected 0 to 9"
            )
            raise DataError(message)
        checked += [images, flat.astype(np.uint8)]
    return RawArrays(*checked)


def _read_batches(path: Path, batches: dict[str, bytes]) -> RawArrays:
    missing = sorted(set(OFFICIAL_MD5) - set(batches))
    if missing:
        message = f"{path} lacks the batch files {', '.join(missing)}. {FETCH_AGAIN}"
        raise DataError(message)
    for name, data in batches.items():
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != OFFICIAL_MD5[name]:
            message = (
                f"{path}: {name} has MD5 {found}, but the official file has {OFFICIAL_MD5[name]}. "
                f"{FETCH_AGAIN} (If you changed the data yourself, store it as an .npz.)"
            )
            raise DataError(message)
    parts = {name: _read_batch(path, name, data) for name, data in batches.items()}
    train = [parts[f"data_batch_{number}"] for number in range(1, 6)]
    arrays = checked_arrays(
        str(path),
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        *parts["test_batch"],
    )
    return RawArrays(arrays.x_train, arrays.y_train, arrays.x_test, arrays.y_test, official=True)


def _read_batch(path: Path, name: str, data: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        rows = batch[b"data"]
        images = rows.reshape(len(rows), 3, 32, 32).transpose(0, 2, 3, 1)
        return images, np.asarray(batch[b"labels"])
    except (pickle.UnpicklingError, KeyError, ValueError, AttributeError, EOFError) as error:
        message = f"{path}: {name} is not a CIFAR-10 batch: {error}. {FETCH_AGAIN}"
        raise DataError(message) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler for NumPy arrays and built-in containers that refuses to import anything else."""

    _ALLOWED: Final = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            message = f"it wants to import {module}.{name}"
            raise pickle.UnpicklingError(message)
        if name == "_reconstruct":
            module = "numpy._core.multiarray"
        return super().find_class(module, name)
