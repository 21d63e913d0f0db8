"""Find the classes of an image folder from the names of its files.

``<class>/*``, or ``train/<class>/*`` with or without ``test/<class>/*``; below one folder that an
archive may add, and with folders inside a class. Files outside of a class folder are ignored.
"""

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from cifar10.contract import MAX_CLASSES, MIN_CLASSES
from cifar10.errors import DataError
from cifar10.labels import LABELS
from cifar10.members import IMAGE_SUFFIXES, is_hidden, member_names, naming_faults, shown
from cifar10.sources import OFFICIAL_MD5

TRAIN: Final = "train"
TEST: Final = "test"

_SPLIT_NAMES: Final = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")
)
"""Folder names that mean a part of a data set rather than a class."""

_MOST_NAMED: Final = 10
"""Maximum number of classes or files that a message names."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Location of the class folders of a data set."""

    depth: int
    """Number of leading folders that all images share."""
    has_parts: bool
    """Whether the folders below those are ``train`` and ``test`` instead of the classes."""
    labels: tuple[str, ...]
    """Names of the classes in alphabetical order, in Unicode's composed form (NFC)."""
    has_test: bool
    count: int
    """Number of images."""

    def place(self, name: PurePosixPath) -> tuple[str, str] | None:
        """Return the part (``train`` or ``test``) and the class of a file; None for one that is in
        no class folder."""
        parts = name.parts[self.depth :]
        part = TRAIN
        if self.has_parts:
            if not parts or parts[0] not in (TRAIN, TEST):
                return None
            part, *parts = parts  # type: ignore[assignment]
        return (part, _composed(parts[0])) if len(parts) >= 2 else None


def find_own_layout(path: Path, *, named: bool) -> Layout | None:
    """Return where the classes of a user's own data set are; None for a copy of CIFAR-10.

    Args:
        path: a folder, tar or zip, or any form of CIFAR-10.
        named: whether it is the user's own even if its classes are CIFAR-10's.

    Raises:
        DataError: the classes cannot be a model's.
    """
    if not path.exists() or path.suffix.lower() == ".npz":
        return None
    with naming_faults(path):
        names = member_names(path, lambda name: not is_hidden(name))
    if any(name.name in OFFICIAL_MD5 for name in names):
        return None
    layout = find_layout(shown(path), [name for name in names if is_image(name)])
    if layout.labels == LABELS and not named:
        return None
    check_labels(shown(path), layout)
    places = [layout.place(name) for name in names if not is_image(name)]
    lost = sorted({place[1] for place in places if place is not None} - {*layout.labels})
    if lost:
        logger.warning(
            "%s: no classes, since their files' names do not end as images' do (.jpg, .png …): %s",
            shown(path), _listed(lost),
        )  # fmt: skip
    return layout


def is_image(name: PurePosixPath) -> bool:
    """Return whether a file is an image of a user's own data set, going by its name."""
    return name.suffix.lower() in IMAGE_SUFFIXES - {""} and not is_hidden(name)


def find_layout(source: str, names: Sequence[PurePosixPath]) -> Layout:
    """Return the layout of the images with these names.

    Args:
        source: the folder or archive, for messages.
        names: names of the images, relative to it.

    Raises:
        DataError: there are no class folders, or parts that are neither ``train`` nor ``test``.
    """
    names = [name for name in names if len(name.parts) >= 2]
    depth = 0
    while names and all(len(name.parts) >= depth + 3 for name in names):
        if len({name.parts[depth] for name in names}) > 1:
            break
        depth += 1
    tops = {name.parts[depth] for name in names}
    if not tops:
        raise _no_classes(source)
    has_parts = TRAIN in tops and tops <= {TRAIN, TEST}
    if not has_parts and (TRAIN in tops or {top.lower() for top in tops} <= _SPLIT_NAMES):
        message = (
            f"{source} has the folders {_listed(sorted(tops))}: expected a folder for each class, "
            "or train/<class>/ and optionally test/<class>/. Rename or move the others."
        )
        raise DataError(message)
    found = Layout(depth, has_parts, (), has_parts and TEST in tops, 0)
    places = [place for name in names if (place := found.place(name)) is not None]
    labels = {part: {label for where, label in places if where == part} for part in (TRAIN, TEST)}
    if found.has_test and labels[TRAIN] != labels[TEST]:
        message = f"{source}: train/ and test/ have different classes. {_differences(**labels)}"
        raise DataError(message)
    if not labels[TRAIN]:
        raise _no_classes(source)
    return replace(found, labels=tuple(sorted(labels[TRAIN])), count=len(places))


def _no_classes(source: str) -> DataError:
    return DataError(
        f"{source} has no class folders: expected <class>/<image>, a folder for each class"
    )


def check_labels(source: str, layout: Layout) -> None:
    """Check that the classes can be a model's.

    Raises:
        DataError: there is one class only, too many, or one whose name is not valid Unicode.
    """
    labels = layout.labels
    if len(labels) < MIN_CLASSES:
        message = (
            f"{source} has one class only, '{shown(labels[0])}': a classifier needs at least "
            f"{MIN_CLASSES}, a folder for each"
        )
        raise DataError(message)
    if len(labels) > MAX_CLASSES:
        message = (
            f"{source} has {len(labels):,} class folders ({_listed(labels)}): at most "
            f"{MAX_CLASSES:,} are supported"
        )
        raise DataError(message)
    for label in labels:
        try:
            label.encode()
        except UnicodeEncodeError:
            message = (
                f"{source}: the name of the class folder '{shown(label)}' is not valid UTF-8. "
                "Rename it."
            )
            raise DataError(message) from None
        if not label.strip():
            message = f"{source}: a class folder is named {label!r}. Rename it."
            raise DataError(message)


def _composed(label: str) -> str:
    """Return the name in composed form: macOS writes "é" as two characters, others as one."""
    return unicodedata.normalize("NFC", label)


def _differences(train: set[str], test: set[str]) -> str:
    return " ".join(
        f"Only in {part}/: {_listed(sorted(labels))}."
        for part, labels in ((TRAIN, train - test), (TEST, test - train))
        if labels
    )


def _listed(names: Sequence[str]) -> str:
    """Return the first of the names, and how many more there are."""
    text = ", ".join(shown(name) for name in names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{text} and {more:,} more" if more > 0 else text
