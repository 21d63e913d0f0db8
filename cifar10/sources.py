"""Read CIFAR-10 from the forms it comes in, streamed and checked.

- an image folder: ``train/<class>/*`` and ``test/<class>/*`` (JPEG, PNG or WebP, 32×32), in which
  links are followed, and what operating systems leave in folders is passed over;
- a tar (plain, gz, bz2, xz) or zip of one, read without unpacking it to disk;
- the official ``cifar-10-batches-py`` folder, or its archive;
- an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``.

Every error names the file and the remedy. No pickle is executed: the official batches are pickles,
and are read by an unpickler that knows NumPy arrays and nothing else.
"""

import hashlib
import io
import logging
import lzma
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import DataError, DatasetNotFoundError, ImageError, UnsupportedImageError
from cifar10.images import decode_tile, image_format
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS

Progress = Callable[[int, int], None]
"""Called with (images done, images expected)."""

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

_MAX_MEMBER_BYTES: Final = 64 * 1024 * 1024
"""No image or batch file is nearly as large: more is not CIFAR-10."""

_FETCH_AGAIN: Final = "The file is truncated or damaged: get it again."

_SYSTEM_FILES: Final = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_SYSTEM_FOLDERS: Final = frozenset(("@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"))
"""What Windows, macOS and network drives leave beside pictures, in small letters."""

_IMAGE_SUFFIXES: Final = frozenset(
    (
        *("", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jxl", ".ppm"),
    )
)
"""A file with such a name is meant as a picture: if it is none that is read here, that is told."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawArrays:
    """The dataset as it came, before splitting.

    ``x_*``: uint8 (N, 32, 32, 3), RGB, 0–255. ``y_*``: uint8 (N,), class ids 0–9.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]
    official: bool = False
    """True: byte for byte the official CIFAR-10, proven by its checksums."""


def read_source(path: Path, progress: Progress | None = None) -> RawArrays:
    """Read the dataset at ``path``, whichever of the known forms it has.

    Raises:
        DatasetNotFoundError: there is nothing at ``path``.
        DataError: it is none of the known forms, or is incomplete or damaged.
    """
    if not path.exists():
        message = f"there is no dataset at {path}; see `cifar10 data --help`"
        raise DatasetNotFoundError(message)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    try:
        return _Collector(path, progress).collect(_members(path))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        message = f"{shown(path)}: {error}. {_FETCH_AGAIN}"
        raise DataError(message) from error
    except OSError as error:
        message = f"{shown(error.filename or path)} cannot be read: {error.strerror or error}"
        raise DataError(message) from error


def shown(name: object) -> str:
    """A path or a file's name as text that can be written: what is not UTF-8 as ``\\xNN``."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def files_below(folder: Path) -> list[Path]:
    """List every file in a folder and those below it, in order, links to folders followed. A link
    that leads nowhere is listed like a file; one that leads back to where it lies is not followed.

    Raises:
        DataError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        message = f"{shown(error.filename)} cannot be read: {error.strerror}"
        raise DataError(message) from error

    found: list[Path] = []
    above: dict[str, frozenset[str]] = {}
    """Folder → the real paths of it and those above it, on the way by which it was reached."""
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = above.get(str(Path(root).parent), frozenset()) | {os.path.realpath(root)}
        above[root] = here
        folders[:] = [name for name in folders if os.path.realpath(Path(root, name)) not in here]
        found += [Path(root, name) for name in names]
    return sorted(found)


def _members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if path.is_dir():
        return _folder_members(path)
    if zipfile.is_zipfile(path):
        return _zip_members(path)
    return _tar_members(path)


def _folder_members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in files_below(path):
        name = PurePosixPath(file.relative_to(path).as_posix())
        if not _wanted(name):
            continue
        if not file.exists():
            message = f"{shown(file)} is a link to nothing. Restore what it links to, or remove it."
            raise DataError(message)
        if file.is_file():  # not a pipe, which has no end
            yield name, _bounded(name, file.stat().st_size, file.read_bytes)


def _zip_members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            # Some programs for Windows write their own separator.
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if not member.filename.endswith(("/", "\\")) and _wanted(name):
                yield name, _bounded(name, member.file_size, partial(_unzip, archive, member))


def _unzip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read one file of a zip.

    Raises:
        DataError: it is encrypted, or packed in a way that Python cannot unpack.
    """
    name = shown(member.filename)
    if member.flag_bits & 1:
        message = f"{name} is encrypted; pack the zip again without a password"
        raise DataError(message)
    try:
        return archive.read(member)
    except NotImplementedError as error:
        message = (
            f"{name} is packed with method {member.compress_type}, which cannot be unpacked here "
            "(9 is Deflate64, which Windows uses for large files). Unpack the zip and name the "
            "folder, or pack it again with Deflate."
        )
        raise DataError(message) from error


def _tar_members(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        archive = tarfile.open(path, "r|*")  # noqa: SIM115 - closed below
    except tarfile.ReadError as error:
        message = (
            f"{path} is not a dataset: expected a folder, a tar, a zip or an .npz "
            f"(see `cifar10 data --help`), or the file is damaged ({error})"
        )
        raise DataError(message) from error
    with archive:
        for member in archive:
            name = PurePosixPath(member.name)
            file = archive.extractfile(member) if member.isfile() and _wanted(name) else None
            if file is not None:
                yield name, _bounded(name, member.size, file.read)


def _bounded(name: PurePosixPath, size: int, read: Callable[[], bytes]) -> bytes:
    if size > _MAX_MEMBER_BYTES:
        message = f"{shown(name)} has {size:,} bytes: too large to be a part of CIFAR-10"
        raise DataError(message)
    return read()


def _wanted(name: PurePosixPath) -> bool:
    if name.name.startswith(".") or name.name.lower() in _SYSTEM_FILES:
        return False
    if any(part.lower() in _SYSTEM_FOLDERS for part in name.parts[:-1]):
        return False
    return name.name in OFFICIAL_MD5 or _split_of(name) is not None


def _split_of(name: PurePosixPath) -> str | None:
    """``train`` or ``test`` for ``[.../]train/<class>/<file>``, otherwise None."""
    parts = name.parts
    return parts[-3] if len(parts) >= 3 and parts[-3] in ("train", "test") else None


class _Collector:
    """Gathers images, or official batches, from the members of a folder or an archive."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.path = path
        self.progress = progress
        self.images: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
        self.labels: dict[str, list[int]] = {"train": [], "test": []}
        self.batches: dict[str, bytes] = {}
        self.passed_over: list[str] = []

    def collect(self, members: Iterator[tuple[PurePosixPath, bytes]]) -> RawArrays:
        done = 0
        for name, data in members:
            if name.name in OFFICIAL_MD5:
                self.batches[name.name] = data
                continue
            if not self._add_image(name, data):
                continue
            done += 1
            if self.progress is not None:
                self.progress(done, TRAIN_COUNT + TEST_COUNT)
        if self.passed_over:
            first = ", ".join(self.passed_over[:3])
            logger.warning(
                "%s: %d files that are no pictures are passed over, such as %s",
                shown(self.path),
                len(self.passed_over),
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
        """Add one picture; False where the file neither is one nor is named like one."""
        if name.suffix.lower() not in _IMAGE_SUFFIXES and not _is_image(data):
            self.passed_over.append(shown(name))
            return False
        split, label = name.parts[-3], name.parts[-2]
        if label not in LABELS:
            message = (
                f"{shown(self.path)}: {shown(name)} lies in an unknown class folder "
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
        message = f"{shown(path)}: {error}. {_FETCH_AGAIN}"
        raise DataError(message) from error
    return checked_arrays(str(path), *arrays)


def checked_arrays(source: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> RawArrays:
    """Arrays from elsewhere, with their types, shapes and label range checked.

    Labels may be (N,) or (N, 1) of any integer type, as Keras gives them.

    Raises:
        DataError: naming the array that is wrong.
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
        message = f"{path} lacks the batch files {', '.join(missing)}. {_FETCH_AGAIN}"
        raise DataError(message)
    for name, data in batches.items():
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != OFFICIAL_MD5[name]:
            message = (
                f"{path}: {name} has MD5 {found}, the official file has {OFFICIAL_MD5[name]}. "
                f"{_FETCH_AGAIN} (Changed data of your own: store it as an .npz.)"
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
        message = f"{path}: {name} is not a CIFAR-10 batch: {error}. {_FETCH_AGAIN}"
        raise DataError(message) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and built-in containers; refuses to import anything else."""

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
