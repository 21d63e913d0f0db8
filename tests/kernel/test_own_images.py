"""Tests of a user's own data set: its classes, its faults, its split and its cache."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.data import cache, own_images
from cifar10.dataset import dataset_of, load_dataset
from cifar10.errors import DataError, DatasetNotFoundError
from cifar10.labels import LABELS
from tests.kernel.source_files import pack_tar, pack_zip

SHAPE = (24, 32, 3)


def picture(seed: int, kind: str = "PNG") -> bytes:
    """Return a picture of random pixels, whose size depends on ``seed``."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (20 + seed % 30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, count: int, start: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        kind = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[suffix]
        (folder / f"{number}{suffix}").write_bytes(picture(number, kind))


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Return a folder of 20 roses and 10 tulips, without a test set."""
    root = tmp_path / "flowers"
    fill(root / "Röschen", 20, 0, ".jpg")
    fill(root / "tulipán 🌷", 10, 100)
    return root


def test_a_folder_of_classes(flowers):
    (flowers / "LICENSE.png").write_bytes(b"not in a class folder, so not read")
    (flowers / "Röschen" / "notes.txt").write_text("not a picture")
    (flowers / "Röschen" / ".hidden.jpg").write_bytes(b"not read")
    told = []
    found = load_dataset(str(flowers), shape=SHAPE, progress=lambda *counts: told.append(counts))
    assert told[-1] == (30, 30)
    assert found.labels == ("Röschen", "tulipán 🌷")
    assert (found.record.name, found.image_shape) == ("flowers", SHAPE)
    assert found.record.variant == f"flowers-{found.record.fingerprint[:8]}"
    counts = [np.bincount(part.labels).tolist() for part in parts_of(found)]
    assert counts == [[13, 7], [3, 1], [4, 2]]
    again = load_dataset(str(flowers), shape=SHAPE)
    assert all(map(same, parts_of(again), parts_of(found)))


def test_the_split_is_the_same_at_every_size_and_under_other_names(flowers, tmp_path):
    other = tmp_path / "elsewhere" / "flowers"
    for number, file in enumerate(sorted(flowers.glob("*/*"), reverse=True)):
        target = other / file.parent.name / "more" / f"{number}{file.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    found = load_dataset(str(flowers), shape=SHAPE)
    moved = load_dataset(str(other), shape=SHAPE)
    larger = load_dataset(str(other), shape=(48, 64, 3))
    assert all(map(same, parts_of(moved), parts_of(found)))
    assert larger.record.fingerprint == moved.record.fingerprint == found.record.fingerprint
    assert np.array_equal(larger.test.labels, found.test.labels)


@pytest.mark.parametrize("top", ["", "archive/flowers"])
def test_an_archive_is_read_as_its_folder(flowers, tmp_path, top):
    if top:
        (tmp_path / "packed" / "archive").mkdir(parents=True)
        shutil.copytree(flowers, tmp_path / "packed" / top)
        (tmp_path / "packed" / "archive" / "README.md").write_text("text")
    packed = tmp_path / "packed" if top else flowers
    expected = load_dataset(str(flowers), shape=SHAPE)
    (tmp_path / "out").mkdir()
    for archive in (
        pack_tar(packed, tmp_path / "out" / "flowers.tar.gz", "w:gz"),
        pack_zip(packed, tmp_path / "out" / "flowers.zip"),
    ):
        found = load_dataset(str(archive), shape=SHAPE)
        assert found.record.fingerprint == expected.record.fingerprint
        assert found.record.name == "flowers"


def test_a_test_folder_is_the_test_set(flowers, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(flowers, root / "train")
    fill(root / "test" / "Röschen", 3, 200)
    # macOS writes é as e and an accent; both names are the same class.
    fill(root / "test" / "tulipa\u0301n 🌷", 2, 300)
    found = load_dataset(str(root), shape=SHAPE)
    counts = [np.bincount(part.labels).tolist() for part in parts_of(found)]
    assert counts == [[16, 8], [4, 2], [3, 2]]
    assert load_dataset(str(flowers.parent / "split"), shape=SHAPE).labels == found.labels


def test_cifar10_s_classes_are_a_user_s_own_if_so_named(tmp_path):
    root = tmp_path / "mine"
    for number, label in enumerate(LABELS):
        fill(root / "train" / label, 10, 1000 * number)
    with pytest.raises(DataError, match="expected 32 × 32"):
        load_dataset(str(root), shape=SHAPE)
    found = load_dataset(str(root), shape=SHAPE, name="ten")
    assert (found.labels, found.record.name) == (LABELS, "ten")
    with pytest.raises(DataError, match="is the name of another data set"):
        load_dataset(str(root), shape=SHAPE, name="cifar10")


def unreadable(root: Path, count: int) -> None:
    for number in range(count):
        (root / "Röschen" / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff nothing")


def test_a_few_unreadable_files_are_listed_and_skipped(flowers, caplog):
    unreadable(flowers, 1)
    found = load_dataset(str(flowers), shape=SHAPE)
    assert found.record.train_count + found.record.validation_count + found.record.test_count == 30
    assert "1 of 31 images cannot be read" in caplog.text
    assert "Röschen/bad0.jpg: the JPEG image cannot be decoded" in caplog.text


def one_class(root: Path) -> None:
    shutil.rmtree(root / "tulipán 🌷")


def no_classes(root: Path) -> None:
    shutil.rmtree(root)
    fill(root, 20, 0)


def no_classes_in_train(root: Path) -> None:
    no_classes(root)
    root.rename(root.with_name("train"))
    root.mkdir()
    root.with_name("train").rename(root / "train")


def too_few(root: Path) -> None:
    fill(root / "lily", 9, 500)


def in_two_classes(root: Path) -> None:
    shutil.copy(root / "Röschen" / "3.jpg", root / "tulipán 🌷" / "rose.jpg")


def in_train_and_test(root: Path) -> None:
    shutil.move(root, root.with_name("whole"))
    shutil.copytree(root.with_name("whole"), root / "train")
    fill(root / "test" / "Röschen", 2, 700)
    fill(root / "test" / "tulipán 🌷", 2, 800)
    shutil.copy(root / "train" / "Röschen" / "3.jpg", root / "test" / "Röschen" / "same.jpg")


def other_test_classes(root: Path) -> None:
    in_train_and_test(root)
    (root / "test" / "Röschen").rename(root / "test" / "Rosen")


def with_val(root: Path) -> None:
    in_train_and_test(root)
    (root / "test").rename(root / "val")


def not_utf8(root: Path) -> None:
    fill(Path(bytes(root).decode() + "/b\udcff"), 10, 900)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda root: unreadable(root, 2), r"2 of 32 images cannot be read:\n  Röschen/bad0.jpg: "),
        (one_class, "has one class only, 'Röschen': a classifier needs at least 2"),
        (no_classes, "has no class folders"),
        (no_classes_in_train, "has no class folders"),
        (
            too_few,
            r"images of one class, at least 10 of each are needed:\n  lily 9\nAdd images, or",
        ),
        (in_two_classes, r"in two classes:\n  Röschen/3.jpg = tulipán 🌷/rose.jpg"),
        (in_train_and_test, r"in train/ and in test/:\n  test/R.*same.jpg = train/Röschen/3.jpg"),
        (other_test_classes, "Only in train/: Röschen. Only in test/: Rosen."),
        (with_val, "has the folders train, val: expected a folder for each class, or train/"),
        (not_utf8, r"the class folder 'b\\xff' is not valid UTF-8"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_is_named(flowers, fault, message):
    fault(flowers)
    with pytest.raises(DataError, match=message):
        load_dataset(str(flowers), shape=SHAPE)


def test_an_image_outside_of_the_parts_is_ignored(flowers):
    for name in ("Röschen", "tulipán 🌷"):
        for part in ("train", "test"):
            shutil.copytree(flowers / name, flowers / "inner" / part / name)
        for number, file in enumerate(sorted((flowers / "inner" / "test" / name).iterdir())):
            kind = "JPEG" if file.suffix == ".jpg" else "PNG"
            file.write_bytes(picture(1_000 + 100 * len(name) + number, kind))
        shutil.rmtree(flowers / name)
    (flowers / "preview.png").write_bytes(picture(0))
    found = load_dataset(str(flowers), shape=SHAPE)
    assert [len(part.labels) for part in parts_of(found)] == [24, 6, 30]


def test_a_folder_whose_files_lack_a_suffix_is_named(flowers, caplog):
    fill(flowers / "lily", 12, 500)
    for file in (flowers / "lily").iterdir():
        file.rename(file.with_suffix(""))
    assert load_dataset(str(flowers), shape=SHAPE).labels == ("Röschen", "tulipán 🌷")
    assert "no classes, since their files' names do not end as images' do" in caplog.text
    assert caplog.text.strip().endswith(": lily")


def test_the_same_image_twice_in_a_class_is_used_once(flowers, caplog):
    shutil.copy(flowers / "Röschen" / "3.jpg", flowers / "Röschen" / "copy.jpg")
    found = load_dataset(str(flowers), shape=SHAPE)
    assert sum(len(part.labels) for part in parts_of(found)) == 30
    assert "3.jpg = Röschen/copy.jpg" in caplog.text


def test_more_than_a_thousand_classes_are_refused(tmp_path):
    for number in range(1001):
        fill(tmp_path / "many" / f"class{number}", 0, 0)
        (tmp_path / "many" / f"class{number}" / "1.png").touch()
    with pytest.raises(DataError, match=r"1,001 class folders .* and 991 more.: at most 1,000"):
        load_dataset(str(tmp_path / "many"), shape=SHAPE)


def test_a_model_s_data_set_is_found_without_its_folder(flowers):
    found = load_dataset(str(flowers), shape=SHAPE)
    shutil.move(flowers, flowers.with_name("gone"))
    assert all(map(same, parts_of(dataset_of(found.record, SHAPE)), parts_of(found)))
    with pytest.raises(DatasetNotFoundError, match=r"not cached here at 9x9 pixels.*--data"):
        dataset_of(found.record, (9, 9, 3))
    moved = dataset_of(found.record, (9, 9, 3), str(flowers.with_name("gone")))
    assert moved.record.name == "flowers"
    fill(flowers.with_name("gone") / "Röschen", 1, 50, ".jpg")
    with pytest.raises(DataError, match="is not the data set 'flowers' that the model"):
        dataset_of(found.record, (8, 8, 3), str(flowers.with_name("gone")))


def test_large_data_sets_are_mapped(flowers, monkeypatch):
    monkeypatch.setattr(cache, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(own_images, "_BATCH", 4)
    found = load_dataset(str(flowers), shape=SHAPE)
    assert isinstance(found.train.images, np.memmap)
    assert not isinstance(found.train.labels, np.memmap)


def test_a_size_is_needed(flowers):
    with pytest.raises(DataError, match=r"its own classes \(2\).*size"):
        load_dataset(str(flowers))


def parts_of(dataset):
    return (dataset.train, dataset.validation, dataset.test)


def same(one, other):
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)
