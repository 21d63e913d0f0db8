"""Writers of the forms in which a data set is distributed."""

import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar10 import sources
from cifar10.dataset import Dataset
from cifar10.sources import RawArrays


def pack_tar(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(folder, "data/pictures")
    return target


def pack_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return target


def write_npz(raw: RawArrays, target: Path, **changes: np.ndarray) -> Path:
    arrays = {name: getattr(raw, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(target, **{**arrays, **changes})
    return target


def write_batches(raw: RawArrays, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the official layout, pickled as by Python 2, with matching checksums."""
    target.mkdir(parents=True)
    parts = [raw.x_train[i::5] for i in range(5)], [raw.y_train[i::5] for i in range(5)]
    files = {
        f"data_batch_{i + 1}": (images, labels)
        for i, (images, labels) in enumerate(zip(*parts, strict=True))
    }
    files["test_batch"] = (raw.x_test, raw.y_test)
    checksums = {}
    for name, (images, labels) in files.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        data = pickle.dumps({b"data": rows, b"labels": labels.tolist()}, protocol=2)
        (target / name).write_bytes(data)
        checksums[name] = sources.hashlib.md5(data).hexdigest()
    monkeypatch.setattr(sources, "OFFICIAL_MD5", checksums)
    return target


def same(a: Dataset, b: Dataset) -> bool:
    return all(
        np.array_equal(getattr(getattr(a, split), part), getattr(getattr(b, split), part))
        for split in ("train", "validation", "test")
        for part in ("images", "labels")
    )
