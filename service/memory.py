"""Configure glibc's allocator to return large freed blocks to the operating system.

By default glibc raises its mmap threshold to the size of the largest block ever freed (32 MiB at
most). After one large image, pixels then come from the heap, where a small allocation above them
keeps their memory in the process for ever, some 200 MB in each worker.
"""

import ctypes
import logging
import sys
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


def return_freed_memory() -> bool:
    """Fix both thresholds for the life of this process; glibc then no longer adjusts them.

    Returns:
        Whether they were set. Always False except on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl lacks it, and its mallopt has no effect
        mallopt = libc.mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    done = mallopt(_MMAP_THRESHOLD, MMAP_BYTES) and mallopt(_TRIM_THRESHOLD, TRIM_BYTES)
    if not done:
        logger.warning("mallopt refused the thresholds; this process may keep freed memory")
    return bool(done)
