"""This server's private folder, for files that its processes share: metrics and control sockets.

The folder is in shared memory if available, so that a full disk does not affect it. Only its owner
may enter it. Every process of the server inherits the folder's lock, and the kernel releases the
lock when the last of them ends. So a later server can tell which folders were left by killed
servers, and removes them.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 — a 0700 folder is made in it
PREFIX: Final = "cifar10-"

_LOCK_FILE: Final = "lock"


@cache
def private_folder() -> Path:
    """Return this server's folder, created at the first call and removed when this process ends.

    Raises:
        OSError: no folder can be created, in shared memory or in the temporary directory.
    """
    try:
        return _make_folder(SHARED_MEMORY)
    except OSError:  # it does not exist, is full, or is not writable
        return _make_folder(Path(tempfile.gettempdir()))


def remove_leftovers(base: Path) -> None:
    """Remove the folders in ``base`` of servers of which no process is left."""
    for lock in base.glob(f"{PREFIX}*/{_LOCK_FILE}"):
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
        except OSError:
            continue  # its server is running, or it belongs to another user


def _make_folder(base: Path) -> Path:
    remove_leftovers(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # mode 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _lock(folder)
    return folder


def _lock(folder: Path) -> None:
    # Lock the file before giving it the name that other servers look for.
    unnamed = folder / f".{_LOCK_FILE}"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(descriptor, True)  # never closed, because closing it would release the lock
    unnamed.rename(folder / _LOCK_FILE)
