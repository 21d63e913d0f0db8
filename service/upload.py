"""The body of a request → the bytes of one image.

A body is either the image itself or ``multipart/form-data`` with exactly one part, ``image``. What
an image is, is for its magic bytes to say and not for a header: ``curl --data-binary`` labels its
body as a form, a URL in a text part is just bytes that are no image, and nothing is ever fetched.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import Kind, Problem, malformed, too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
HeaderMap = dict[bytes, bytes]

IMAGE_PART: Final = "image"

MAX_DELIMITERS: Final = 2
"""A form of one part has one delimiter after a line break, or two where a line break comes first.
Counting is fast; the parser takes a microsecond for each thing that looks like a delimiter."""
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 1024
MAX_CONTENT_TYPE_BYTES: Final = 512


class ClientDisconnectedError(Exception):
    """The client went away before its body was complete; nobody is left to answer."""


async def read_body(receive: Receive, headers: HeaderMap, max_bytes: int) -> bytes:
    """Read the request's body, as long as it is no larger than accepted.

    Raises:
        Problem: 400 for an empty body, 413 as soon as it is known to have more than ``max_bytes``
            (from its Content-Length, before anything is read), 415 for a compressed one.
        ClientDisconnectedError: the body will never be complete.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        detail = "compressed bodies are not accepted; send the image's own bytes"
        raise Problem(Kind.UNSUPPORTED, detail, headers=((b"accept-encoding", b"identity"),))
    body = await _read_capped(receive, headers, max_bytes)
    if not body:
        detail = "the body is empty; send one JPEG, PNG or WebP image"
        raise malformed(detail)
    return body


def extract_image(body: bytes, content_type: bytes) -> bytes:
    """The bytes of the one image in ``body``; whether they are an image is not looked at here.

    Raises:
        Problem: 400 for a form that is broken or does not hold exactly one part ``image``, 415 for
            another multipart type.
    """
    if content_type[:10].lower() != b"multipart/":
        return body
    if len(content_type) > MAX_CONTENT_TYPE_BYTES:
        detail = f"the Content-Type has more than {MAX_CONTENT_TYPE_BYTES} bytes"
        raise malformed(detail)
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        detail = "of the multipart types, only multipart/form-data is accepted"
        raise Problem(Kind.UNSUPPORTED, detail)
    boundary = options.get(b"boundary")
    if not boundary:
        detail = "the Content-Type is multipart/form-data without a boundary"
        raise malformed(detail)
    parts = _parse(body, boundary)
    names = [part.name for part in parts]
    if names != [IMAGE_PART]:
        raise _expected_one_image(names)
    image = b"".join(parts[0].content)
    if not image:
        detail = f"the part {IMAGE_PART!r} is empty; send one JPEG, PNG or WebP image"
        raise malformed(detail)
    return image


async def _read_capped(receive: Receive, headers: HeaderMap, max_bytes: int) -> bytes:
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit():
            detail = "Content-Length is not a number"
            raise malformed(detail)
        if len(length) > 18 or int(length) > max_bytes:
            raise too_large(max_bytes)
    body = bytearray()  # not a list: a body of one-byte chunks would fill the memory with objects
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise too_large(max_bytes)
        if not message.get("more_body", False):
            return bytes(body)


@dataclass
class _Part:
    name: str | None = None
    content: list[bytes] = field(default_factory=list)


class _Collector:
    """Callbacks for the parser: collects the parts."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._header = b""
        self._value = b""

    def part_begin(self) -> None:
        self.parts.append(_Part())

    def header_begin(self) -> None:
        self._header = self._value = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            name = options.get(b"name")
            self.parts[-1].name = None if name is None else name.decode("utf-8", "replace")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content.append(data[start:end])

    def end(self) -> None:
        self.complete = True


def _parse(body: bytes, boundary: bytes) -> list[_Part]:
    if body.count(b"\r\n--" + boundary) > MAX_DELIMITERS:
        raise _expected_one_image(["several"])
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.part_begin,
                "on_header_begin": collector.header_begin,
                "on_header_field": collector.header_field,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_part_data": collector.part_data,
                "on_end": collector.end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        detail = f"the multipart body cannot be parsed: {error}"
        raise malformed(detail) from error
    if not collector.complete:
        detail = "the multipart body is empty or ends before its closing boundary"
        raise malformed(detail)
    return collector.parts


def _expected_one_image(names: list[str | None]) -> Problem:
    found = ", ".join("a part without a name" if name is None else name[:32] for name in names)
    detail = f"expected exactly one part, named {IMAGE_PART!r}; found: {found or 'none'}"
    return malformed(detail)
