"""Limit the overhead of a chunked body: chunk sizes, extensions and trailers."""

from typing import Final

MAX_FRAMING_BYTES: Final = 64 * 1024
"""Overhead allowed for every body, in bytes."""
FRAMING_SHARE: Final = 8
"""Divisor of the content's size that gives the additional overhead allowed. Overhead is limited
because every chunk takes time, however small it is."""


class Framing:
    """Counts the content and overhead of one body."""

    def __init__(self) -> None:
        self.content = 0
        """Bytes of content so far."""
        self._received = 0

    def begin(self) -> None:
        """Start counting a new body."""
        self.content = self._received = 0

    def is_excessive(self, received: int) -> bool:
        """Count ``received`` more bytes and return whether the overhead so far is too large."""
        self._received += received
        return self._received - self.content > MAX_FRAMING_BYTES + self.content // FRAMING_SHARE
