"""Sources, checks, the split and the cache."""

import gzip
import io
import os
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar10 import dataset as dataset_module
from cifar10 import sources
from cifar10.dataset import Dataset, load_dataset, split_dataset, synthetic_arrays
from cifar10.errors import DataError, DatasetNotFoundError
from cifar10.labels import LABELS
from cifar10.sources import RawArrays, read_source
from tests.conftest import encode

PER_CLASS = {"train": 10, "test": 3}


@pytest.fixture(autouse=True)
def _small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete copy has 100 + 30 images here, so that a test can make one."""
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


def pack_tar(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(folder, "data/pictures")
    return target


def pack_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    return target


def write_npz(raw: RawArrays, target: Path, **changes: np.ndarray) -> Path:
    arrays = {name: getattr(raw, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(target, **{**arrays, **changes})
    return target


def write_batches(raw: RawArrays, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official layout, as Python 2 pickled it, with checksums that say it is genuine."""
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


def test_every_form_gives_the_same_dataset(raw, folder, tmp_path, monkeypatch):
    forms = [
        folder,
        pack_tar(folder, tmp_path / "a.tar", "w"),
        pack_tar(folder, tmp_path / "a.tar.xz", "w:xz"),
        pack_tar(folder, tmp_path / "a.tgz", "w:gz"),
        pack_zip(folder, tmp_path / "a.zip"),
        write_npz(raw, tmp_path / "a.npz", y_train=raw.y_train.astype(np.int64)[:, None]),
        write_batches(raw, tmp_path / "x" / "cifar-10-batches-py", monkeypatch).parent,
    ]
    loaded = [load_dataset(str(form)) for form in forms]
    assert len({found.record.fingerprint for found in loaded}) == 1
    assert all(same(found, loaded[0]) for found in loaded)
    assert [found.record.variant for found in loaded[-2:]] == [
        f"custom-{loaded[0].record.fingerprint[:8]}",
        "cifar10",
    ]


def test_the_split_is_stratified_complete_and_disjoint(raw):
    found = split_dataset(raw, source="test")
    assert np.bincount(found.train.labels).tolist() == [9] * 10
    assert np.bincount(found.validation.labels).tolist() == [1] * 10
    assert np.bincount(found.test.labels).tolist() == [3] * 10
    pixels = {image.tobytes() for image in (*found.train.images, *found.validation.images)}
    assert pixels == {image.tobytes() for image in raw.x_train}


def test_the_order_of_the_files_does_not_matter(raw):
    shuffled = np.random.default_rng(1).permutation(len(raw.x_train))
    other = RawArrays(raw.x_train[shuffled], raw.y_train[shuffled], raw.x_test, raw.y_test)
    assert same(split_dataset(raw, source="a"), split_dataset(other, source="b"))


def test_images_keep_their_labels(raw):
    found = split_dataset(raw, source="test")
    truth = {image.tobytes(): label for image, label in zip(raw.x_train, raw.y_train, strict=True)}
    for split in (found.train, found.validation):
        for image, label in zip(split.images, split.labels, strict=True):
            assert truth[image.tobytes()] == label


def test_one_changed_pixel_changes_the_fingerprint(raw):
    changed = raw.x_test.copy()
    changed[0, 0, 0, 0] ^= 1
    other = RawArrays(raw.x_train, raw.y_train, changed, raw.y_test)
    first, second = (split_dataset(r, source="t").record.fingerprint for r in (raw, other))
    assert first != second


def test_the_second_load_decodes_nothing(folder, monkeypatch):
    first = load_dataset(str(folder))

    def refuse(*_: object) -> None:
        pytest.fail("decoded again")

    monkeypatch.setattr(dataset_module, "read_source", refuse)
    assert same(load_dataset(str(folder)), first)


def test_a_changed_folder_is_read_again(folder):
    before = load_dataset(str(folder)).record.fingerprint
    victim = next((folder / "test" / "cat").iterdir())
    victim.write_bytes(encode(np.full((32, 32, 3), 9, np.uint8)))
    assert load_dataset(str(folder)).record.fingerprint != before


def test_a_damaged_cache_is_rebuilt_not_trusted(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "own-cache"))
    first = load_dataset(str(folder))
    (cached,) = (tmp_path / "own-cache").rglob("test_images.npy")
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)
    assert same(load_dataset(str(folder)), first)


def test_a_missing_image_is_missed(folder):
    next((folder / "train" / "dog").iterdir()).unlink()
    with pytest.raises(DataError, match=r"train set has 99 images, expected 100.*dog 9"):
        load_dataset(str(folder))


def test_an_unknown_class_folder(folder):
    (folder / "train" / "dog").rename(folder / "train" / "wolf")
    with pytest.raises(DataError, match=r"unknown class folder 'wolf'.*airplane"):
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
def test_a_truncated_archive(folder, tmp_path, share):
    whole = pack_tar(folder, tmp_path / "a.tar.xz", "w:xz").read_bytes()
    cut = tmp_path / "cut.tar.xz"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.tar\.xz.*(get it again|damaged)"):
        load_dataset(str(cut))


def test_a_corrupted_zip(folder, tmp_path):
    path = pack_zip(folder, tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[200:260] = b"\0" * 60
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip"):
        load_dataset(str(path))


def test_not_a_dataset_at_all(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="not a dataset: expected a folder, a tar, a zip"):
        load_dataset(str(text))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no dataset"):
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
def test_arrays_that_are_not_the_dataset(raw, tmp_path, changes, message):
    path = write_npz(raw, tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message):
        load_dataset(str(path))


def test_an_npz_that_lacks_an_array(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(1))
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test"):
        load_dataset(str(tmp_path / "a.npz"))


def test_a_changed_official_batch(raw, tmp_path, monkeypatch):
    root = write_batches(raw, tmp_path / "cifar-10-batches-py", monkeypatch)
    data = bytearray((root / "data_batch_3").read_bytes())
    data[-100] ^= 1
    (root / "data_batch_3").write_bytes(data)
    with pytest.raises(DataError, match=r"data_batch_3 has MD5 .* the official file has"):
        load_dataset(str(root))


def test_a_missing_official_batch(raw, tmp_path, monkeypatch):
    root = write_batches(raw, tmp_path / "cifar-10-batches-py", monkeypatch)
    (root / "test_batch").unlink()
    with pytest.raises(DataError, match="lacks the batch files test_batch"):
        load_dataset(str(root))


def test_a_pickle_that_wants_more_than_arrays_is_not_run(tmp_path, monkeypatch):
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


def test_without_a_source_the_official_archive_is_downloaded_once(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "own-cache"))
    calls = []

    def download() -> RawArrays:
        calls.append(1)
        return RawArrays(raw.x_train, raw.y_train, raw.x_test, raw.y_test, official=True)

    first = load_dataset(download=download)
    assert first.record.variant == "cifar10"
    assert same(load_dataset(), first)
    assert calls == [1]


def test_without_a_source_or_a_download_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "own-cache"))
    with pytest.raises(DatasetNotFoundError, match=r"cifar10 data.*CIFAR10_DATA"):
        load_dataset()


def test_progress_counts_images(folder):
    seen: list[tuple[int, int]] = []
    read_source(folder, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, 131))


def test_a_gzip_that_is_no_tar(tmp_path):
    path = tmp_path / "a.gz"
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="w") as file:
        file.write(b"not a tar" * 200)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"a\.gz"):
        load_dataset(str(path))


def test_a_link_to_nothing_is_named(folder):
    (folder / "train" / "dog" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png is a link to nothing"):
        load_dataset(str(folder))


def test_a_class_folder_may_be_a_link_and_links_may_go_in_circles(folder, tmp_path):
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
def test_file_names_that_are_not_utf_8(folder):
    files = sorted((folder / "train" / "cat").iterdir())
    odd = Path(os.fsdecode(os.fsencode(files[0].parent) + b"/k\xe4tzchen.png"))
    files[0].rename(odd)
    assert len(load_dataset(str(folder)).train.labels) == 90
    odd.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"k\\xe4tzchen\.png") as caught:
        load_dataset(str(folder))
    str(caught.value).encode()


SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "Icon\r", ".DS_Store", "@eaDir/0001.png/SYNO@.jpg")


def test_what_systems_leave_in_folders_is_passed_over(folder, tmp_path, caplog):
    expected = load_dataset(str(folder))
    for place in (folder, folder / "train", folder / "train" / "cat"):
        for name in SYSTEM_FILES:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"not a picture")
    assert same(load_dataset(str(folder)), expected)
    archive = tmp_path / "a.tar"
    assert same(load_dataset(str(pack_tar(folder, archive, "w"))), expected)
    assert not caplog.records


def test_other_files_are_passed_over_and_told(folder, caplog):
    expected = load_dataset(str(folder))
    for place in (folder / "train", folder / "train" / "cat"):
        (place / "labels.txt").write_text("cat\n")
    assert same(load_dataset(str(folder)), expected)
    assert "train/cat/labels.txt" in caplog.text


def test_a_picture_of_another_type_is_not_passed_over(folder):
    (folder / "train" / "cat" / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"a\.gif: expected a JPEG, PNG or WebP"):
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


def test_a_zip_packed_with_deflate64(folder, tmp_path):
    path = change_zip(pack_zip(folder, tmp_path / "a.zip"), 8, b"\x09\0")
    with pytest.raises(DataError, match=r"\.png is packed with method 9.*Deflate64"):
        load_dataset(str(path))


def test_an_encrypted_zip(folder, tmp_path):
    path = change_zip(pack_zip(folder, tmp_path / "a.zip"), 6, b"\x01\0")
    with pytest.raises(DataError, match=r"\.png is encrypted.*without a password"):
        load_dataset(str(path))


def test_a_zip_with_backslashes(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.rglob("*"):
            name = str(file.relative_to(folder)).replace("/", "\\")
            member = zipfile.ZipInfo(name + "\\" * file.is_dir())
            archive.writestr(member, b"" if file.is_dir() else file.read_bytes())
    assert same(load_dataset(str(tmp_path / "a.zip")), load_dataset(str(folder)))


def test_the_suffix_may_be_in_capitals(raw, tmp_path):
    path = write_npz(raw, tmp_path / "a.npz").rename(tmp_path / "DATA.NPZ")
    assert np.array_equal(read_source(path).x_test, raw.x_test)
