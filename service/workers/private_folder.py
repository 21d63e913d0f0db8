"""A folder of this server alone, for what its processes share as files: metrics, control sockets.

It is in shared memory where there is some, so that a full disk takes nothing from it, and only its
owner may enter it. Every process of the server inherits the folder's lock, and the kernel releases
a lock with the last process that has it: so a later server can tell which folders are left over
from servers that were killed, and removes those.
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
    """Return this server's folder, made at the first call and removed when this process ends.

    Raises:
        OSError: no folder can be made, in shared memory or among the temporary files.
    """
    try:
        return _make_folder(SHARED_MEMORY)
    except OSError:  # there is none, or it is full or closed to this user
        return _make_folder(Path(tempfile.gettempdir()))


def remove_leftovers(base: Path) -> None:
    """Remove the folders in ``base`` whose server, and each of its processes, has ended."""
    for lock in base.glob(f"{PREFIX}*/{_LOCK_FILE}"):
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
        except OSError:
            continue  # its server runs, or it is another user's


def _make_folder(base: Path) -> Path:
    remove_leftovers(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # mode 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _lock(folder)
    return folder


def _lock(folder: Path) -> None:
    # Locked before it has the name that others look for.
    unnamed = folder / f".{_LOCK_FILE}"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(descriptor, True)  # and never closed: it is the lock
    unnamed.rename(folder / _LOCK_FILE)
