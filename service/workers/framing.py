"""How much of a chunked body is not content: sizes of chunks, extensions, trailers."""

from typing import Final

MAX_FRAMING_BYTES: Final = 64 * 1024
"""Bytes of a body that are not content, at most, ..."""
FRAMING_SHARE: Final = 8
"""... and this part of the content on top: each chunk costs time, however small it is."""


class Framing:
    """Counts the bytes of one body."""

    def __init__(self) -> None:
        self.content = 0
        """Bytes of its content so far."""
        self._received = 0

    def begin(self) -> None:
        """Count those of another body."""
        self.content = self._received = 0

    def is_excessive(self, received: int) -> bool:
        """Take note of ``received`` more bytes; whether too many so far are not content."""
        self._received += received
        return self._received - self.content > MAX_FRAMING_BYTES + self.content // FRAMING_SHARE
