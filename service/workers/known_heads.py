"""Remember the heads of requests, so that a head seen before is not parsed again.

A client sends the same head with each of its requests, except for the Content-Length. Equal bytes
mean the same to the parser, so what it found is kept for heads that it accepted.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from service.workers.heads import END_OF_HEAD

MAX_HEADS: Final = 256
MAX_KNOWN_BYTES: Final = 1024
"""Maximum length of a remembered head. Both limits together bound the memory."""

_LENGTHS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
"""Ways in which clients write the field. A head with another way is parsed each time."""
_MAX_DIGITS: Final = 9


class KnownHead(NamedTuple):
    """A parsed head."""

    scope: Mapping[str, Any]
    """The ASGI scope of its request."""
    keep_alive: bool


class KnownHeads:
    """The heads of requests of one worker, the oldest of which is forgotten first."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        """Head without the digits of its Content-Length → what it means."""

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return the head and the body of a request; None if ``data`` is not exactly one request
        with a body, or its head is not known."""
        parts = _split(data)
        if parts is None:
            return None
        known = self._heads.get(parts[0])
        return None if known is None else (known, parts[1])

    def remember(self, data: bytes, scope: Mapping[str, Any], keep_alive: bool) -> None:
        """Remember the head of the request ``data``, which the parser has accepted.

        Args:
            data: the request with its whole body.
            scope: the ASGI scope that was made of it; it must not be changed any more.
            keep_alive: whether the connection continues.
        """
        parts = _split(data)
        names = [name for name, _ in scope["headers"]]
        if parts is None or names.count(b"content-length") != 1 or b"transfer-encoding" in names:
            return
        if len(self._heads) >= MAX_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[parts[0]] = KnownHead(scope, keep_alive)


def _split(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a request's head without the digits of its Content-Length, and its body; None unless
    the body is all that follows the head and not empty."""
    ends = data.find(END_OF_HEAD, 0, MAX_KNOWN_BYTES)
    if ends < 0:
        return None
    for field in _LENGTHS:
        found = data.find(field, 0, ends)
        if found >= 0:
            break
    else:
        return None
    begins = found + len(field)
    until = data.find(b"\r", begins)
    digits, body = data[begins:until], data[ends + len(END_OF_HEAD) :]
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or int(digits) != len(body) or not body:
        return None
    return data[:begins] + data[until:ends], body
