"""Detect clients that do not read their answers."""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Final

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""Minimum rate at which a client must read; slower connections are reset."""


class WriteProgress:
    """Tracks the output of one connection that its client has not yet received."""

    def __init__(self) -> None:
        self._began = 0.0
        self._unsent = 0

    def is_stalled(self, transport: asyncio.Transport, now: float, patience: float) -> bool:
        """Return whether the client has read too little in the last ``patience`` seconds. Call it
        periodically.

        Args:
            transport: the connection's transport.
            now: current time in seconds, on any clock.
            patience: seconds over which progress is measured.
        """
        buffered = transport.get_write_buffer_size()
        if not buffered:
            self._unsent = 0
            return False
        # Count the kernel's buffer too: the transport's alone shrinks in steps of megabytes.
        unsent = buffered + _unsent_by_kernel(transport)
        if not self._unsent:
            self._began, self._unsent = now, unsent
            return False
        seconds = now - self._began
        if seconds <= patience:
            return False
        taken = self._unsent - unsent
        self._began, self._unsent = now, unsent
        return taken < SLOWEST_BYTES_PER_SECOND * seconds


def reset(transport: asyncio.Transport) -> None:
    """Reset a connection and discard unsent output. If it were only closed, the kernel would keep
    the connection and megabytes of answers until the client reads or disconnects."""
    connection = transport.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unsent_by_kernel(transport: asyncio.Transport) -> int:
    """Return the bytes in the kernel that the client has not acknowledged; 0 if unknown."""
    connection = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (OSError, AttributeError):
        return 0
    return int(struct.unpack("i", answer)[0])
