"""The head of a request as bytes: where it ends, how it is written again, why it was refused."""

import logging
from collections.abc import Iterable
from typing import Final

import httptools

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 64 * 1024

END_OF_HEAD: Final = b"\r\n\r\n"
_CONTENT_LENGTH: Final = b"\r\nContent-Length:"


class HeadEnd:
    """Finds the end of a head that arrives in any number of packets."""

    def __init__(self) -> None:
        self._tail = b""

    def find(self, data: bytes, position: int) -> int:
        """Return the index after the head's end in ``data`` from ``position`` on, or the length
        of ``data`` where it does not end there."""
        tail = self._tail
        if tail:
            found = (tail + data[position : position + 3]).find(END_OF_HEAD)
            if found >= 0:
                self._tail = b""
                return position + found + len(END_OF_HEAD) - len(tail)
        found = data.find(END_OF_HEAD, position)
        if found >= 0:
            self._tail = b""
            return found + len(END_OF_HEAD)
        self.note(tail + data[max(position, len(data) - 3) :])
        return len(data)

    def note(self, read: bytes) -> None:
        """Take note of the last bytes that were read: the end may be split between two packets."""
        self._tail = read[-3:]


def content_length(data: bytes, begins: int, ends: int) -> int:
    """Return the Content-Length in a head that the parser has not read yet; 0 where there is none.

    It only tells whether the parser can get head and body at once. How long the body is, the parser
    says.
    """
    if ends == len(data):
        return 0
    found = data.find(_CONTENT_LENGTH, begins, ends)
    if found < 0:  # as other clients write it
        found = data[begins:ends].lower().find(_CONTENT_LENGTH.lower())
        if found < 0:
            return 0
        found += begins
    try:
        return int(data[found + len(_CONTENT_LENGTH) : data.find(b"\r", found + 2)])
    except ValueError:
        return 0


def without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Return the same head without its Upgrade field; names of ``headers`` are lower case."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % field for field in headers if field[0] != b"upgrade"]
    return b"\r\n".join(lines) + END_OF_HEAD


def why_unparsable(error: httptools.HttpParserError) -> str:
    """Return why the parser gave up, for the client; log it where the fault may be ours."""
    if not isinstance(error, httptools.HttpParserCallbackError):
        reason = str(error)
        return "HTTP/2 was sent without asking" if "PRI" in reason else reason
    cause = error.__context__
    if not isinstance(cause, (httptools.HttpParserError, ValueError)):
        logger.error("a request could not be begun", exc_info=cause)
    return "its address cannot be parsed"
