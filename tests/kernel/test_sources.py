"""Tests of reading a data set's sources: what is read, and what is refused."""

import gzip
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar10 import sources
from cifar10.dataset import load_dataset
from cifar10.errors import DataError, DatasetNotFoundError
from cifar10.labels import LABELS
from cifar10.sources import read_source
from tests.conftest import encode
from tests.kernel.source_files import pack_tar, pack_zip, same, write_batches, write_npz

pytestmark = pytest.mark.usefixtures("small_counts")


def test_a_missing_image_is_an_error(folder):
    next((folder / "train" / "dog").iterdir()).unlink()
    with pytest.raises(DataError, match=r"train set has 99 images, expected 100.*dog 9"):
        load_dataset(str(folder))


def test_an_unknown_class_folder_is_an_error(folder):
    (folder / "train" / "dog").rename(folder / "train" / "wolf")
    with pytest.raises(DataError, match=r"Only in train/: wolf\. Only in test/: dog"):
        load_dataset(str(folder))


def test_a_truncated_image_is_named(folder):
    victim = next((folder / "train" / "frog").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(DataError, match=f"frog/{victim.name}"):
        load_dataset(str(folder))


def test_an_image_of_another_size_is_refused(folder):
    victim = next((folder / "train" / "frog").iterdir())
    victim.write_bytes(encode(np.zeros((64, 64, 3), np.uint8)))
    with pytest.raises(DataError, match=rf"{victim.name}.*64 × 64, expected 32 × 32"):
        load_dataset(str(folder))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_archive_is_an_error(folder, tmp_path, share):
    whole = pack_tar(folder, tmp_path / "a.tar.xz", "w:xz").read_bytes()
    cut = tmp_path / "cut.tar.xz"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.tar\.xz.*(get it again|damaged)"):
        load_dataset(str(cut))


def test_a_corrupted_zip_is_an_error(folder, tmp_path):
    path = pack_zip(folder, tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[200:260] = b"\0" * 60
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip"):
        load_dataset(str(path))


def test_a_file_that_is_not_a_dataset_is_an_error(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="not a dataset: expected a folder, a tar, a zip"):
        load_dataset(str(text))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        load_dataset(str(tmp_path / "empty"))
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        load_dataset(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.full(100, 10)}, "labels from 10 to 10, expected 0 to 9"),
        ({"y_test": np.full(30, -1)}, "labels from -1"),
        ({"y_test": np.zeros(29, int)}, "expected 30 integers"),
        ({"y_test": np.zeros(30)}, "expected 30 integers"),
        ({"x_test": np.zeros((30, 28, 28, 3), np.uint8)}, r"expected uint8 \(N, 32, 32, 3\)"),
        ({"x_test": np.zeros((30, 32, 32, 3), np.float32)}, "x_test is float32"),
        ({"x_test": np.array([{}], object)}, "pickle"),
    ],
)
def test_invalid_arrays_are_errors(raw, tmp_path, changes, message):
    path = write_npz(raw, tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message):
        load_dataset(str(path))


def test_an_npz_without_one_of_its_arrays_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(1))
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test"):
        load_dataset(str(tmp_path / "a.npz"))


def test_a_changed_official_batch_is_an_error(raw, tmp_path, monkeypatch):
    root = write_batches(raw, tmp_path / "cifar-10-batches-py", monkeypatch)
    data = bytearray((root / "data_batch_3").read_bytes())
    data[-100] ^= 1
    (root / "data_batch_3").write_bytes(data)
    with pytest.raises(DataError, match=r"data_batch_3 has MD5 .* but the official file has"):
        load_dataset(str(root))


def test_a_missing_official_batch_is_an_error(raw, tmp_path, monkeypatch):
    root = write_batches(raw, tmp_path / "cifar-10-batches-py", monkeypatch)
    (root / "test_batch").unlink()
    with pytest.raises(DataError, match="lacks the batch files test_batch"):
        load_dataset(str(root))


def test_a_pickle_that_imports_more_than_arrays_is_refused(tmp_path, monkeypatch):
    marker = tmp_path / "executed"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)

    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    checksums = {}
    for name in sources.OFFICIAL_MD5:
        data = pickle.dumps(Malicious(), protocol=2)
        (root / name).write_bytes(data)
        checksums[name] = sources.hashlib.md5(data).hexdigest()
    monkeypatch.setattr(sources, "OFFICIAL_MD5", checksums)
    with pytest.raises(DataError, match="wants to import"):
        load_dataset(str(root))
    assert not marker.exists()


def test_a_gzip_that_is_not_a_tar_is_an_error(tmp_path):
    path = tmp_path / "a.gz"
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="w") as file:
        file.write(b"not a tar" * 200)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"a\.gz"):
        load_dataset(str(path))


def test_the_error_names_a_broken_link(folder):
    (folder / "train" / "dog" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png is a broken link"):
        load_dataset(str(folder))


def test_class_folders_may_be_links_and_links_may_be_circular(folder, tmp_path):
    expected = load_dataset(str(folder))
    (folder / "train" / "dog").rename(tmp_path / "dogs elsewhere")
    (folder / "train" / "dog").symlink_to(tmp_path / "dogs elsewhere")
    (tmp_path / "dogs elsewhere" / "again").symlink_to(tmp_path / "dogs elsewhere")
    (folder / "train" / "up").symlink_to(folder)
    assert same(load_dataset(str(folder)), expected)


def test_one_folder_may_be_linked_twice(folder, tmp_path):
    (folder / "test").rename(tmp_path / "kept")
    (folder / "test").mkdir()
    for label in LABELS:
        (folder / "test" / label).symlink_to(tmp_path / "kept" / "cat")
    assert np.bincount(read_source(folder).y_test).tolist() == [3] * 10


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such names")
def test_file_names_may_be_other_than_utf_8(folder):
    files = sorted((folder / "train" / "cat").iterdir())
    odd = Path(os.fsdecode(os.fsencode(files[0].parent) + b"/k\xe4tzchen.png"))
    files[0].rename(odd)
    assert len(load_dataset(str(folder)).train.labels) == 90
    odd.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"k\\xe4tzchen\.png") as caught:
        load_dataset(str(folder))
    str(caught.value).encode()


SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "Icon\r", ".DS_Store", "@eaDir/0001.png/SYNO@.jpg")


def test_files_left_by_operating_systems_are_ignored(folder, tmp_path, caplog):
    expected = load_dataset(str(folder))
    for place in (folder, folder / "train", folder / "train" / "cat"):
        for name in SYSTEM_FILES:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"not a picture")
    assert same(load_dataset(str(folder)), expected)
    archive = tmp_path / "a.tar"
    assert same(load_dataset(str(pack_tar(folder, archive, "w"))), expected)
    assert not caplog.records


def test_other_files_are_skipped_with_a_warning(folder, caplog):
    expected = load_dataset(str(folder))
    for place in (folder / "train", folder / "train" / "cat"):
        (place / "labels.txt").write_text("cat\n")
    assert same(load_dataset(str(folder)), expected)
    assert "train/cat/labels.txt" in caplog.text


def test_a_picture_of_another_type_is_an_error(folder):
    (folder / "train" / "cat" / "a.gif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"a\.gif: expected a JPEG, PNG, WebP"):
        load_dataset(str(folder))


def change_zip(path: Path, offset: int, value: bytes) -> Path:
    """Set a field of every member, in its local header and in the directory (APPNOTE 4.3)."""
    data = bytearray(path.read_bytes())
    for signature, start in ((b"PK\3\4", offset), (b"PK\1\2", offset + 2)):
        at = data.find(signature)
        while at >= 0:
            data[at + start : at + start + len(value)] = value
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    return path


def test_a_zip_with_deflate64_is_an_error(folder, tmp_path):
    path = change_zip(pack_zip(folder, tmp_path / "a.zip"), 8, b"\x09\0")
    with pytest.raises(DataError, match=r"\.png uses compression method 9.*Deflate64"):
        load_dataset(str(path))


def test_an_encrypted_zip_is_an_error(folder, tmp_path):
    path = change_zip(pack_zip(folder, tmp_path / "a.zip"), 6, b"\x01\0")
    with pytest.raises(DataError, match=r"\.png is encrypted.*without a password"):
        load_dataset(str(path))


def test_a_zip_with_backslashes_is_read(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.rglob("*"):
            name = str(file.relative_to(folder)).replace("/", "\\")
            member = zipfile.ZipInfo(name + "\\" * file.is_dir())
            archive.writestr(member, b"" if file.is_dir() else file.read_bytes())
    assert same(load_dataset(str(tmp_path / "a.zip")), load_dataset(str(folder)))


def test_the_suffix_may_be_in_upper_case(raw, tmp_path):
    path = write_npz(raw, tmp_path / "a.npz").rename(tmp_path / "DATA.NPZ")
    assert np.array_equal(read_source(path).x_test, raw.x_test)
