"""The model store: ``models/<name>/`` with ``model.onnx`` and ``card.json``.

A folder without a card is not a model: the card is written last. Files are written beside their
final place and moved there, so that a reader never sees half of one.
"""

import errno
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cifar10.card import ModelCard, RefusedVariant, read_card, read_refused
from cifar10.errors import (
    DigestMismatchError,
    InvalidCardError,
    InvalidModelNameError,
    ModelNotFoundError,
    UnreadableStoreError,
)
from cifar10.records import MAX_BYTES
from cifar10.suggestions import did_you_mean

CARD_FILE: Final = "card.json"
ONNX_FILE: Final = "model.onnx"
KERAS_FILE: Final = "model.keras"
TRAINING_FILE: Final = "training.json"
HISTORY_FILE: Final = "history.csv"
README_FILE: Final = "README.md"
REFUSED_FILE: Final = "refused.json"
"""File that takes the place of a card for a variant that lost too much accuracy to be served."""

MAX_ONNX_BYTES: Final = 2 << 30
"""Size limit of a Protobuf message."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True)
class StoredModel:
    """A model read from the store; ``onnx`` holds the bytes whose digest was checked."""

    card: ModelCard
    onnx: bytes


class ModelStore:
    """The models under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """Return the folder of model ``name``, whether or not it exists.

        Raises:
            InvalidModelNameError: ``name`` is not a valid model name (or would leave the store).
        """
        if not _NAME.fullmatch(name):
            message = f"{name!r} is not a model name: expected lower-case letters, digits and _"
            raise InvalidModelNameError(message)
        return self.root / name

    def names(self) -> list[str]:
        """Return the names of all complete models (those with a card), sorted.

        Raises:
            UnreadableStoreError: this user may not read the store or a folder in it.
        """
        try:
            if not self.root.is_dir():
                return []
            return sorted(
                entry.name
                for entry in self.root.iterdir()
                if _NAME.fullmatch(entry.name) and (entry / CARD_FILE).is_file()
            )
        except PermissionError as error:
            message = (
                f"the model store {self.root} cannot be read: {error.strerror}: {error.filename}. "
                f"Let this user read it (chmod -R a+rX {self.root}), or use another store: "
                "CIFAR10_MODELS=PATH"
            )
            raise UnreadableStoreError(message) from error

    def refused(self) -> list[RefusedVariant]:
        """Return the variants that were made and rejected, sorted by name.

        Raises:
            InvalidCardError: a ``refused.json`` is invalid or belongs to another variant.
        """
        if not self.root.is_dir():
            return []
        found = []
        for path in sorted(self.root.glob(f"*/{REFUSED_FILE}")):
            if (path.parent / CARD_FILE).is_file():
                continue
            try:
                variant = read_refused(read_regular_file(path, MAX_BYTES))
            except (InvalidCardError, OSError) as error:
                message = f"{path}: {_reason(error)}"
                raise InvalidCardError(message) from error
            if variant.card.name != path.parent.name:
                message = f"{path} is about {variant.card.name!r}, not {path.parent.name!r}"
                raise InvalidCardError(message)
            found.append(variant)
        return found

    def card(self, name: str) -> ModelCard:
        """Return the validated card of model ``name``.

        Raises:
            InvalidModelNameError, ModelNotFoundError, InvalidCardError
        """
        path = self.folder(name) / CARD_FILE
        try:
            card = read_card(read_regular_file(path, MAX_BYTES))
        except FileNotFoundError:
            raise ModelNotFoundError(self._not_found(name)) from None
        except (InvalidCardError, OSError) as error:
            message = f"{path}: {_reason(error)}"
            raise InvalidCardError(message) from error
        if card.name != name:
            message = f"{path} is the card of {card.name!r}, not of {name!r}"
            raise InvalidCardError(message)
        return card

    def _not_found(self, name: str) -> str:
        try:
            refused = {variant.card.name: variant for variant in self.refused()}
        except InvalidCardError:  # another variant's; this one is missing either way
            refused = {}
        if name in refused:
            return f"{name!r} cannot be used: it was refused because it {refused[name].reason}"
        names = self.names()
        near = did_you_mean(name, names)
        remedy = near or f" Make it: cifar10 train {name} && cifar10 export {name}"
        return (
            f"no model {name!r} in {self.root} (there are: {', '.join(names) or 'none'}).{remedy}"
        )

    def load(self, name: str) -> StoredModel:
        """Return the card of model ``name`` and the ONNX file that it describes.

        Raises:
            InvalidModelNameError, ModelNotFoundError, InvalidCardError
            DigestMismatchError: the file is not the one the card describes; the message gives both
                digests.
        """
        card = self.card(name)
        path = self.folder(name) / ONNX_FILE
        try:
            data = read_regular_file(path, MAX_ONNX_BYTES)
        except FileNotFoundError:
            message = f"{path} is missing although its card is there; run: cifar10 export {name}"
            raise ModelNotFoundError(message) from None
        except OSError as error:
            message = f"{path} cannot be read: {_reason(error)}"
            raise ModelNotFoundError(message) from error
        found = hashlib.sha256(data).hexdigest()
        if found != card.sha256:
            message = (
                f"{path} has SHA-256 {found}, but its card says {card.sha256}: it is not the file "
                f"that was exported and measured. Run: cifar10 export {name}"
            )
            raise DigestMismatchError(message)
        return StoredModel(card, data)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal, without reading it whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file. Refuses FIFOs and devices, which could block.

    Raises:
        OSError: it cannot be read, is not a regular file, or has more than ``max_bytes``.
    """
    # O_NONBLOCK, because opening a FIFO blocks until it has a writer. No effect on a regular file.
    with open(path, "rb", opener=_open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``path`` atomically: readers, and a crash, see either the old file or the new one."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private, but other users read the store
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
