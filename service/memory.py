"""glibc's allocator, told to give large blocks back to the operating system.

By default the size from which glibc maps a block of its own moves up to the largest block that was
ever freed (32 MiB at most): after one large image its pixels come from the heap, where something
small above them keeps them for ever, some 200 MB in each worker.
"""

import ctypes
import logging
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Numbers of glibc's parameters: ``man 3 mallopt``."""

MMAP_BYTES: Final = 1024 * 1024
"""Blocks from here on are mapped, and unmapped when freed. Above what a request of small images
needs: mapping costs some microseconds, and a page fault for each page."""
TRIM_BYTES: Final = 8 * 1024 * 1024
"""How much may stay free at the top of the heap."""

logger = logging.getLogger(__name__)


def return_freed_memory() -> bool:
    """Set both thresholds for the life of this process; setting them also stops their moving.

    Returns:
        Whether it was done: False elsewhere than on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl has no such function, and a mallopt of no effect
        mallopt = libc.mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    done = mallopt(_MMAP_THRESHOLD, MMAP_BYTES) and mallopt(_TRIM_THRESHOLD, TRIM_BYTES)
    if not done:
        logger.warning("mallopt refused its thresholds; freed memory may stay with this process")
    return bool(done)
