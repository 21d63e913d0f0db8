"""Make glibc's allocator return freed memory to the operating system.

By default glibc raises its mmap threshold to the size of the largest block ever freed (32 MiB at
most). After one large image, pixels then come from the heap, where a small allocation above them
keeps their memory in the process, some 200 MB in each worker.
"""

import asyncio
import ctypes
import logging
import mmap
import sys
from pathlib import Path
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Parameter numbers of glibc's ``mallopt`` (``man 3 mallopt``)."""

MMAP_BYTES: Final = 1024 * 1024
"""Size from which blocks are mapped, and unmapped when freed. Above what a request with small
images needs, because mapping costs some microseconds and a page fault per page."""
TRIM_BYTES: Final = 8 * 1024 * 1024
"""Free memory that may stay at the top of the heap."""

logger = logging.getLogger(__name__)


TRIM_SECONDS: Final = 10.0
GROWTH_BYTES: Final = 16 * 1024 * 1024
"""Growth of the process after which free memory between used blocks is returned."""


def return_freed_memory() -> bool:
    """Fix glibc's mmap and trim thresholds, which it otherwise adjusts.

    Returns:
        Whether they were set. Always False except on Linux with glibc.
    """
    libc = _glibc()
    if libc is None:
        return False
    libc.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    done = libc.mallopt(_MMAP_THRESHOLD, MMAP_BYTES) and libc.mallopt(_TRIM_THRESHOLD, TRIM_BYTES)
    if not done:
        logger.warning("mallopt refused the thresholds; this process may keep freed memory")
    return bool(done)


async def trim_as_it_grows(seconds: float = TRIM_SECONDS) -> None:
    """Return free memory between used blocks to the operating system whenever this process has
    grown by :data:`GROWTH_BYTES`. Ends at once if that is not possible.

    gRPC's threads leave such memory after calls that their clients cancel: a plain grpcio server
    that had grown by 31 MB after 8,500 of them shrank by 25 MB.

    Args:
        seconds: interval between checks of the process's size.
    """
    libc = _glibc()
    if libc is None:
        return
    usual = _resident_bytes()
    while True:
        await asyncio.sleep(seconds)
        if _resident_bytes() > usual + GROWTH_BYTES:
            await asyncio.to_thread(libc.malloc_trim, 0)
            usual = _resident_bytes()
        usual = min(usual, _resident_bytes())


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl lacks it, and its mallopt has no effect
    except (AttributeError, OSError):
        return None
    return libc


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
