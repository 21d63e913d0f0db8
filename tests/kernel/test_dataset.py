"""Tests of the dataset: source forms, split, fingerprint and cache."""

import numpy as np
import pytest

from cifar10 import dataset as dataset_module
from cifar10.dataset import load_dataset, split_dataset
from cifar10.errors import DatasetNotFoundError
from cifar10.sources import RawArrays, read_source
from tests.conftest import encode
from tests.kernel.source_files import pack_tar, pack_zip, same, write_batches, write_npz

pytestmark = pytest.mark.usefixtures("small_counts")


def test_every_source_form_gives_the_same_dataset(raw, folder, tmp_path, monkeypatch):
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


def test_the_second_load_uses_the_cache(folder, monkeypatch):
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


def test_a_damaged_cache_is_rebuilt(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "own-cache"))
    first = load_dataset(str(folder))
    (cached,) = (tmp_path / "own-cache").rglob("test_images.npy")
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(data)
    assert same(load_dataset(str(folder)), first)


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


def test_without_source_or_download_the_error_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "own-cache"))
    with pytest.raises(DatasetNotFoundError, match=r"CIFAR10_DATA.*cifar10 data"):
        load_dataset()


def test_progress_counts_images(folder):
    seen: list[tuple[int, int]] = []
    read_source(folder, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, 131))
