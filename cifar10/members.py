"""Read the files of a data set from a folder, a tar or a zip, without unpacking an archive to disk.

Links are followed, and files that operating systems leave in folders are ignored.
"""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from cifar10.errors import DataError

Member = tuple[PurePosixPath, bytes]
"""A file's name, relative to the folder or archive, and its content."""

Wanted = Callable[[PurePosixPath], bool]
"""Predicate that says whether the file of this name is part of the data set."""

_MAX_MEMBER_BYTES: Final = 64 * 1024 * 1024
"""Largest member file that is read."""

_SYSTEM_FILES: Final = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_SYSTEM_FOLDERS: Final = frozenset(("@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"))
"""Files and folders that Windows, macOS and network drives leave beside pictures, in lower case."""

IMAGE_SUFFIXES: Final = frozenset(
    (
        *("", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jxl", ".ppm"),
    )
)
"""Suffixes, in lower case, that mark a file as a picture. If such a file cannot be read, that is an
error."""

FETCH_AGAIN: Final = "The file is truncated or damaged: get it again."


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Convert errors of reading the folder or archive into an error that names the file.

    Raises:
        DataError: the folder or archive is damaged or cannot be read.
    """
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        message = f"{shown(path)}: {error}. {FETCH_AGAIN}"
        raise DataError(message) from error
    except OSError as error:
        message = f"{shown(error.filename or path)} cannot be read: {error.strerror or error}"
        raise DataError(message) from error


def shown(name: object) -> str:
    """Return a path or file name as printable text, with non-UTF-8 bytes as ``\\xNN``."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def files_below(folder: Path) -> list[Path]:
    """List every file in a folder and its subfolders, sorted. Links to folders are followed, except
    those that lead back to a parent folder. Broken links are listed like files.

    Raises:
        DataError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        message = f"{shown(error.filename)} cannot be read: {error.strerror}"
        raise DataError(message) from error

    found: list[Path] = []
    above: dict[str, frozenset[str]] = {}
    """Folder → the real paths of the folder and its parents, along the path that led to it."""
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = above.get(str(Path(root).parent), frozenset()) | {os.path.realpath(root)}
        above[root] = here
        folders[:] = [name for name in folders if os.path.realpath(Path(root, name)) not in here]
        found += [Path(root, name) for name in names]
    return sorted(found)


def members(path: Path, wanted: Wanted) -> Iterator[Member]:
    """Yield the name and content of each wanted file of a folder, tar or zip.

    Raises:
        DataError: a file cannot be read, is too large, or ``path`` is neither a folder nor an
            archive.
    """
    if path.is_dir():
        return _folder_members(path, wanted)
    if zipfile.is_zipfile(path):
        return _zip_members(path, wanted)
    return _tar_members(path, wanted)


def member_names(path: Path, wanted: Wanted) -> list[PurePosixPath]:
    """Return the names of the wanted files, in the order of :func:`members`, without their content.

    Raises:
        DataError: as :func:`members`.
    """
    if path.is_dir():
        found = [PurePosixPath(file.relative_to(path).as_posix()) for file in files_below(path)]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = [_zip_name(member) for member in archive.infolist() if not _is_folder(member)]
    else:
        with _open_tar(path) as archive:
            found = [PurePosixPath(member.name) for member in archive if member.isfile()]
    return [name for name in found if _is_wanted(name, wanted)]


def _folder_members(path: Path, wanted: Wanted) -> Iterator[Member]:
    for file in files_below(path):
        name = PurePosixPath(file.relative_to(path).as_posix())
        if not _is_wanted(name, wanted):
            continue
        if not file.exists():
            message = f"{shown(file)} is a broken link. Restore its target, or remove the link."
            raise DataError(message)
        if file.is_file():  # not a pipe, which would block
            yield name, _bounded(name, file.stat().st_size, file.read_bytes)


def _zip_members(path: Path, wanted: Wanted) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _zip_name(member)
            if not _is_folder(member) and _is_wanted(name, wanted):
                yield name, _bounded(name, member.file_size, partial(_unzip, archive, member))


def _zip_name(member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the name with slashes; some Windows programs write backslashes."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.filename.endswith(("/", "\\"))


def _unzip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read one file of a zip.

    Raises:
        DataError: it is encrypted or uses an unsupported compression method.
    """
    name = shown(member.filename)
    if member.flag_bits & 1:
        message = f"{name} is encrypted; pack the zip again without a password"
        raise DataError(message)
    try:
        return archive.read(member)
    except NotImplementedError as error:
        message = (
            f"{name} uses compression method {member.compress_type}, which is not supported "
            "(9 is Deflate64, which Windows uses for large files). Unpack the zip and give the "
            "folder, or pack it again with Deflate."
        )
        raise DataError(message) from error


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r|*")
    except tarfile.ReadError as error:
        message = (
            f"{path} is not a dataset: expected a folder, a tar, a zip or an .npz "
            f"(see `cifar10 data --help`), or the file is damaged ({error})"
        )
        raise DataError(message) from error


def _tar_members(path: Path, wanted: Wanted) -> Iterator[Member]:
    with _open_tar(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            file = (
                archive.extractfile(member)
                if member.isfile() and _is_wanted(name, wanted)
                else None
            )
            if file is not None:
                yield name, _bounded(name, member.size, file.read)


def _bounded(name: PurePosixPath, size: int, read: Callable[[], bytes]) -> bytes:
    if size > _MAX_MEMBER_BYTES:
        message = f"{shown(name)} has {size:,} bytes: too large for a file of a data set"
        raise DataError(message)
    return read()


def is_hidden(name: PurePosixPath) -> bool:
    """Return whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(part.startswith(".") for part in name.parts)


def is_left_by_system(name: PurePosixPath) -> bool:
    """Return whether an operating system or network drive left this file beside pictures."""
    if name.name.startswith(".") or name.name.lower() in _SYSTEM_FILES:
        return True
    return any(part.lower() in _SYSTEM_FOLDERS for part in name.parts[:-1])


def _is_wanted(name: PurePosixPath, wanted: Wanted) -> bool:
    return not is_left_by_system(name) and wanted(name)
