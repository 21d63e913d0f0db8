"""Decoded data sets on disk: an ``.npy`` file for each array, and a description with digests."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cifar10.card import DatasetRecord
from cifar10.labels import DATASET_NAME, LABELS
from cifar10.members import files_below
from cifar10.records import RecordError, from_json, to_json
from cifar10.store import file_sha256, write_atomic

MAPPED_BYTES: Final = 1 << 30
"""Size of an array above which it is memory-mapped instead of read into memory. CIFAR-10 is far
below."""

SPLITS: Final = ("train", "validation", "test")

_PARTS: Final = ("images", "labels")
_ENTRY_FILE: Final = "entry.json"
_ADDED_LATER: Final = {"record": {"name": DATASET_NAME}, "labels": list(LABELS)}

_ROWS: Final = 512
"""Rows written at once."""

Rows = NDArray[np.int64] | slice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """Description of a cached data set, with the digests of its files."""

    record: DatasetRecord
    sha256: dict[str, str]
    """File name → SHA-256."""
    labels: tuple[str, ...]


Arrays = tuple[NDArray[Any], NDArray[Any]]
"""Images and labels."""


def write_cache(
    folder: Path,
    record: DatasetRecord,
    labels: tuple[str, ...],
    splits: Mapping[str, tuple[Arrays, Rows]],
) -> None:
    """Write the chosen rows of each split's arrays, and the description last."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for split, (arrays, rows) in splits.items():
        for part, array in zip(_PARTS, arrays, strict=True):
            file = folder / f"{split}_{part}.npy"
            _save_rows(file, array, rows)
            digests[file.name] = file_sha256(file)
    write_atomic(folder / _ENTRY_FILE, to_json(CacheEntry(record, digests, labels)))


def read_cache(folder: Path) -> tuple[CacheEntry, dict[str, Arrays]] | None:
    """Return the description and each split's arrays, or None if they are missing or damaged."""
    try:
        entry = from_json(CacheEntry, (folder / _ENTRY_FILE).read_text(), _ADDED_LATER)
        splits = {}
        for split in SPLITS:
            files = [folder / f"{split}_{part}.npy" for part in _PARTS]
            for file in files:
                if file_sha256(file) != entry.sha256[file.name]:
                    logger.warning("%s is damaged; decoding the dataset again", file)
                    return None
            images, labels = (_load(file) for file in files)
            splits[split] = (images, labels)
    except FileNotFoundError:
        return None
    except (RecordError, KeyError, OSError, ValueError) as error:
        logger.warning("the dataset cache in %s is unusable (%s); decoding again", folder, error)
        return None
    return entry, splits


def source_key(source: str | None) -> str:
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


def _save_rows(file: Path, array: NDArray[Any], rows: Rows) -> None:
    """Write some rows of an array to an ``.npy`` file, without holding them all in memory."""
    chosen = np.arange(len(array))[rows]
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    shape = (len(chosen), *array.shape[1:])
    written = np.lib.format.open_memmap(temporary, "w+", array.dtype, shape)
    for start in range(0, len(chosen), _ROWS):
        written[start : start + _ROWS] = array[chosen[start : start + _ROWS]]
    written.flush()
    temporary.replace(file)


def _load(file: Path) -> NDArray[Any]:
    mapped = file.stat().st_size > MAPPED_BYTES
    array: NDArray[Any] = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
