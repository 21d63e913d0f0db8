"""Whether a client takes what is written to it."""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Final

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""A client that takes its answer more slowly than this is given up."""


class WriteProgress:
    """Watches what one connection has written and its client has not taken."""

    def __init__(self) -> None:
        self._began = 0.0
        self._unsent = 0

    def is_stalled(self, transport: asyncio.Transport, now: float, patience: float) -> bool:
        """Whether too little was taken in the last ``patience`` seconds; asked now and then.

        Args:
            transport: the connection's.
            now: seconds on any clock.
            patience: seconds over which progress is measured.
        """
        buffered = transport.get_write_buffer_size()
        if not buffered:
            self._unsent = 0
            return False
        # The transport's buffer alone shrinks in steps of megabytes, as the kernel's does.
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
    """End a connection without what is unsent. Merely closed, the kernel would keep it, its client
    and megabytes of answers until the client reads or leaves."""
    connection = transport.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unsent_by_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has taken and the client has not acknowledged; 0: it does not tell."""
    connection = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (OSError, AttributeError):
        return 0
    return int(struct.unpack("i", answer)[0])
