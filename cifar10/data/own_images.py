"""Read a user's own images: decode each one once, to the size of a model's input, and split them.

The split is stratified and follows from a hash of each file's content, so it depends neither on the
files' names and order nor on the size that they are decoded to. So models of different sizes can be
compared on the same test images.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cifar10.contract import ImageShape
from cifar10.data.layout import TEST, TRAIN, Layout, is_image
from cifar10.errors import DataError, ImageError
from cifar10.image_layout import Fit, Target
from cifar10.images import DecodeLimits, decode_image
from cifar10.machine import usable_cores
from cifar10.members import Member, members, shown

MAX_UNREADABLE: Final = 0.05
"""Largest share of files that may be unreadable; they are listed and skipped."""

MIN_IMAGES: Final = 10
"""Least number of images of each class to train and validate with, and to test with where ``test/``
is missing."""

TEST_SHARE: Final = 5
"""Divisor of the test set where there is no ``test/``: one in five images of each class."""
VALIDATION_SHARE: Final = 5
"""Divisor of the validation set: one in five of each class's other images."""

_LIMITS: Final = DecodeLimits(
    max_bytes=64 << 20, max_pixels=250_000_000, max_pixels_whole=100_000_000
)
"""Limits of decoding, larger than a server's because these are the user's own files."""

_BATCH: Final = 32
"""Files in memory at once."""

_MOST_NAMED: Final = 10
"""Files that a message names."""

Progress = Callable[[int, int], None]
"""Progress callback, called with (images done, images expected)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnImages:
    """All images of a data set, decoded, and their split."""

    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """uint8 (N, H, W, 3), RGB, in the order in which they were read; memory-mapped."""
    class_ids: NDArray[np.uint16]
    """uint16 (N,)."""
    names: tuple[str, ...]
    """Name of each image's file, relative to the folder or archive."""
    splits: dict[str, NDArray[np.int64]]
    """``train``, ``validation`` and ``test`` → indices of their images, sorted by hash."""
    fingerprint: str
    """SHA-256 over the classes' names, and each split's file hashes and labels."""


def read_own(
    path: Path,
    layout: Layout,
    shape: ImageShape,
    scratch: Path,
    progress: Progress | None = None,
    *,
    fit: Fit = "squash",
) -> OwnImages:
    """Decode and split the images of a folder, tar or zip.

    Args:
        path: the folder or archive.
        layout: where its classes are.
        shape: the size to decode to.
        scratch: an empty folder, in which the pixels are kept while the result is in use.
        progress: called with the number of images read, and of all.
        fit: how an image of another aspect ratio is fitted to ``shape``.

    Raises:
        DataError: too many files are unreadable, a class has too few images, or one image is in
            two classes or in ``train/`` and ``test/``.
    """
    reader = _Reader(shown(path), layout, Target(width=shape[1], height=shape[0], fit=fit))
    with (scratch / "pixels").open("wb") as file:
        for pixels in reader.read(path):
            file.write(pixels.data)
            if progress is not None:
                progress(len(reader.places), layout.count)
    reader.check()
    places = reader.places
    class_ids = np.array([layout.labels.index(place.label) for place in places], np.uint16)
    splits = _split(places, class_ids, len(layout.labels), has_test=layout.has_test)
    pixels = np.memmap(scratch / "pixels", np.uint8, "r", shape=(len(places), *shape))
    fingerprint = _fingerprint(layout.labels, places, class_ids, splits)
    names = tuple(place.name for place in places)
    return OwnImages(layout.labels, pixels, class_ids, names, splits, fingerprint)


@dataclass(frozen=True)
class _Place:
    """An image that was read."""

    name: str
    part: str
    label: str
    digest: bytes
    """SHA-256 of the file."""


class _Reader:
    """Decodes images and notes what is wrong with them."""

    def __init__(self, source: str, layout: Layout, target: Target) -> None:
        self.source = source
        self.layout = layout
        self.target = target
        self.places: list[_Place] = []
        self._unreadable: list[str] = []
        self._repeated: list[str] = []
        self._in_two_classes: list[str] = []
        self._in_both_parts: list[str] = []
        self._seen: dict[bytes, _Place] = {}
        """Digest of pixels → the first image that has them."""

    def read(self, path: Path) -> Iterator[NDArray[np.uint8]]:
        """Yield each image that is added to :attr:`places`."""
        wanted = (
            (name, data)
            for name, data in members(path, is_image)
            if self.layout.place(name) is not None
        )
        with ThreadPoolExecutor(usable_cores()) as pool:
            while some := list(islice(wanted, _BATCH)):
                for (name, data), decoded in zip(some, pool.map(self._decoded, some), strict=True):
                    if isinstance(decoded, str):
                        self._unreadable.append(f"{shown(name)}: {decoded}")
                    elif self._add(name, data, decoded):
                        yield decoded

    def _decoded(self, member: Member) -> NDArray[np.uint8] | str:
        """Return the pixels, or why there are none."""
        try:
            return decode_image(member[1], _LIMITS, self.target)
        except ImageError as error:
            return str(error)

    def _add(self, name: PurePosixPath, data: bytes, pixels: NDArray[np.uint8]) -> bool:
        place = self.layout.place(name)
        if place is None:
            return False
        added = _Place(shown(name), *place, hashlib.sha256(data).digest())
        first = self._seen.setdefault(hashlib.sha256(pixels.data).digest(), added)
        if first is added:
            self.places.append(added)
            return True
        pair = f"{first.name} = {added.name}"
        if first.label != added.label:
            self._in_two_classes.append(pair)
        elif first.part != added.part:
            self._in_both_parts.append(pair)
        else:
            self._repeated.append(pair)
        return False

    def check(self) -> None:
        """Report what is wrong with the images.

        Raises:
            DataError: it is too much.
        """
        count = len(self.places) + len(self._unreadable)
        if self._unreadable:
            message = (
                f"{self.source}: {len(self._unreadable):,} of {count:,} images cannot be read:"
                f"{_lines(self._unreadable)}"
            )
            if len(self._unreadable) > MAX_UNREADABLE * count:
                message += f"\nAt most {MAX_UNREADABLE:.0%} are skipped. Repair or remove them."
                raise DataError(message)
            logger.warning("%s\nThey are skipped.", message)
        for pairs, what, remedy in (
            (self._in_two_classes, "in two classes", "Keep each in the class that it belongs to."),
            (self._in_both_parts, "in train/ and in test/", "Remove them from one of the two."),
        ):
            if pairs:
                message = f"{self.source}: {_images(len(pairs))} {what}:{_lines(pairs)}\n{remedy}"
                raise DataError(message)
        if self._repeated:
            logger.warning(
                "%s: %s in the same class twice:%s\nEach is used once.",
                self.source, _images(len(self._repeated)), _lines(self._repeated),
            )  # fmt: skip
        self._check_counts()

    def _check_counts(self) -> None:
        for part, least in ((TRAIN, MIN_IMAGES), (TEST, 1)):
            if part == TEST and not self.layout.has_test:
                continue
            counts = dict.fromkeys(self.layout.labels, 0)
            for place in self.places:
                counts[place.label] += place.part == part
            few = [f"{shown(label)} {count}" for label, count in counts.items() if count < least]
            if few:
                where = f" in {part}/" if self.layout.has_parts else ""
                message = (
                    f"{self.source}: too few images{where} of {_classes(len(few))}, at least "
                    f"{least} of each are needed:{_lines(few)}\nAdd images, or remove the folder "
                    "of the class."
                )
                raise DataError(message)


def _images(count: int) -> str:
    return "one image is" if count == 1 else f"{count:,} images are"


def _classes(count: int) -> str:
    return "one class" if count == 1 else f"{count:,} classes"


def _lines(items: Sequence[str]) -> str:
    """Return the first items, each on a line of its own, and how many more there are."""
    shown_ones = [*items[:_MOST_NAMED]]
    if len(items) > _MOST_NAMED:
        shown_ones.append(f"… and {len(items) - _MOST_NAMED:,} more")
    return "".join(f"\n  {item}" for item in shown_ones)


def _split(
    places: list[_Place], class_ids: NDArray[np.uint16], classes: int, *, has_test: bool
) -> dict[str, NDArray[np.int64]]:
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    order = sorted(range(len(places)), key=lambda index: places[index].digest)
    of_class: list[list[int]] = [[] for _ in range(classes)]
    for index in order:
        if places[index].part == TEST:
            splits["test"].append(index)
        else:
            of_class[class_ids[index]].append(index)
    for indices in of_class:
        tested = 0 if has_test else max(1, len(indices) // TEST_SHARE)
        validated = max(1, (len(indices) - tested) // VALIDATION_SHARE)
        splits["test"] += indices[:tested]
        splits["validation"] += indices[tested : tested + validated]
        splits["train"] += indices[tested + validated :]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return {
        name: np.array(sorted(indices, key=rank.__getitem__), np.int64)
        for name, indices in splits.items()
    }


def _fingerprint(
    labels: tuple[str, ...],
    places: list[_Place],
    class_ids: NDArray[np.uint16],
    splits: dict[str, NDArray[np.int64]],
) -> str:
    total = hashlib.sha256("\0".join(labels).encode())
    for indices in splits.values():
        total.update(len(indices).to_bytes(8, "big"))
        for index in indices:  # sorted by digest
            total.update(places[index].digest + int(class_ids[index]).to_bytes(2, "big"))
    return total.hexdigest()
