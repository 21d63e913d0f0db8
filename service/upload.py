"""Read a request's body and extract the bytes of its images.

A body is either the image itself or ``multipart/form-data`` with parts named ``image`` or ``file``:
exactly one for a route that classifies one image. Text fields of other names are ignored. The type
of an image is determined by its magic bytes, never by a header, because ``curl --data-binary``
labels its body as a form. A URL in a part is not fetched; it is refused as bytes that are not an
image.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import (
    DEFAULT_MAX_HEADER_SIZE,
    MultipartParser,
    parse_options_header,
)

from service.exchange import Request
from service.one_part import only_image
from service.problems import (
    Kind,
    Problem,
    malformed,
    too_large,
    too_many_images,
    try_later,
)

IMAGE_PARTS: Final = ("image", "file")
"""Names of a form's parts that are images."""
_NAMES: Final = " or ".join(map(repr, IMAGE_PARTS))

MAX_TEXT_FIELDS: Final = 16
"""Maximum number of other fields of a form, which are ignored."""

MAX_ARRIVING_BYTES: Final = 256 * 1024 * 1024
"""Maximum bytes of all arriving bodies of one worker. A body that arrives in one piece, like any
small one, is not counted."""

_LARGE_PART: Final = 16
"""Divisor of the size limit that gives the size of a large body. Only large bodies are refused when
all arriving bodies together hold too much memory."""

MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = DEFAULT_MAX_HEADER_SIZE
"""Largest part header: 4,224 bytes. A file name of 255 Chinese characters takes 2,295 bytes
percent-encoded, and a header may contain it in two forms."""
MAX_CONTENT_TYPE_BYTES: Final = 512


class ClientDisconnectedError(Exception):
    """The client disconnected before its body was complete, so there is nobody to answer."""


class BodyReader:
    """Reads bodies with limits on their size, their time to arrive, and their total memory while
    arriving. Without the last limit, a thousand clients could each occupy ten megabytes.

    All reads have the same time limit, so they expire in the order in which they began, and one
    timer serves them all. A timer per request would cost more than reading its body does.

    Args:
        max_bytes: size limit of a body.
        seconds: time limit for a body to arrive.
        max_arriving_bytes: limit on the total size of all unfinished bodies.
    """

    def __init__(
        self, max_bytes: int, seconds: float, max_arriving_bytes: int = MAX_ARRIVING_BYTES
    ) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._max_arriving_bytes = max(max_arriving_bytes, max_bytes)
        self._arriving_bytes = 0
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Reading task → its deadline on the event loop's clock, earliest first."""
        self._late: set[asyncio.Task[Any]] = set()
        self._timer_is_set = False

    async def read(
        self, request: Request, *, encodings: tuple[bytes, ...] = (), may_be_empty: bool = False
    ) -> bytes:
        """Return the request's body as it was sent.

        Args:
            request: the request.
            encodings: content encodings that the caller decodes; any other is refused.
            may_be_empty: whether to return an empty body.

        Raises:
            Problem: 400 for an empty body, 408 if it does not arrive in time, 413 as soon as it is
                known to be too large (from its Content-Length, before anything is read), 415 for a
                content encoding that is not accepted, 503 while other bodies fill the memory.
            ClientDisconnectedError: the client disconnected before the body was complete.
        """
        encoding = request.headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"identity", b"", *encodings):
            accepted = b", ".join((b"identity", *encodings))
            detail = f"this Content-Encoding is not accepted; accepted: {accepted.decode()}"
            raise Problem(Kind.UNSUPPORTED, detail, headers=((b"accept-encoding", accepted),))
        body = await self._read_in_time(request)
        if not body and not may_be_empty:
            detail = "the body is empty"
            raise malformed(detail)
        return body

    def is_plain(self, request: Request, body: bytes) -> bool:
        """Return whether :meth:`read` would return ``body``, which has arrived whole, as it is."""
        return 0 < len(body) <= self._max_bytes and b"content-encoding" not in request.headers

    async def _read_in_time(self, request: Request) -> bytes:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            message = "a body can only be read in a task"
            raise RuntimeError(message)
        self._reading[task] = ends = loop.time() + self._seconds
        if not self._timer_is_set:
            self._timer_is_set = True
            loop.call_at(ends, self._end_late_reads, loop)
        try:
            return await self._read_capped(request)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            detail = f"the body was not complete after {self._seconds:g} seconds"
            headers = ((b"connection", b"close"),)
            raise Problem(Kind.BODY_TIMEOUT, detail, headers=headers) from None
        finally:
            del self._reading[task]
            self._late.discard(task)

    async def _read_capped(self, request: Request) -> bytes:
        max_bytes = self._max_bytes
        length = request.headers.get(b"content-length")
        if length is not None:
            if not length.isdigit():
                detail = "Content-Length is not a number"
                raise malformed(detail)
            if len(length) > 18 or int(length) > max_bytes:
                raise too_large(max_bytes)
        message = await request.receive()
        whole: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(whole) > max_bytes:
                raise too_large(max_bytes)
            return whole
        # Not a list of chunks: a body of one-byte chunks would fill the memory with objects.
        body = bytearray()
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError
                part = message.get("body", b"")
                body += part
                self._arriving_bytes += len(part)
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
                large = len(body) > max_bytes // _LARGE_PART
                if large and self._arriving_bytes > self._max_arriving_bytes:
                    detail = "too many large bodies are arriving at once; try again in a second"
                    raise try_later(Kind.QUEUE_FULL, detail)
                message = await request.receive()
        finally:
            self._arriving_bytes -= len(body)

    def _end_late_reads(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, ends in self._reading.items():
            if ends > now:
                loop.call_at(ends, self._end_late_reads, loop)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._timer_is_set = False


def extract_image(body: bytes, content_type: bytes) -> bytes:
    """Return the bytes of the single image in ``body``, which is a form or the image itself.

    Does not check that they are an image.

    Raises:
        Problem: 400 for a form that is malformed or does not contain exactly one image, 415 for
            another multipart type.
    """
    if content_type[:10].lower() != b"multipart/":
        return body
    image = only_image(body, content_type)
    if image is not None:
        return image
    images = _images_of(_parse(body, _boundary(content_type), 1))
    if len(images) != 1:
        raise _expected_one_image(
            "several such parts; POST /classify/batch takes many images"
            if images
            else "no such part"
        )
    if not images[0]:
        detail = f"the part {_NAMES} is empty; send one image"
        raise malformed(detail)
    return images[0]


def extract_images(body: bytes, content_type: bytes, most: int) -> list[bytes]:
    """Return the bytes of every image of a form, in order.

    Raises:
        Problem: 400 for a form that is malformed, has no image or contains other files, 413 for
            more than ``most`` images, 415 for a body that is not a form.
    """
    if content_type[:10].lower() != b"multipart/":
        detail = f"expected multipart/form-data with parts {_NAMES}, or application/x-npy"
        raise Problem(Kind.UNSUPPORTED, detail)
    images = _images_of(_parse(body, _boundary(content_type), most))
    if len(images) > most:
        raise too_many_images(most)
    if not images:
        detail = f"the form has no part named {_NAMES}"
        raise malformed(detail)
    return images


def _boundary(content_type: bytes) -> bytes:
    if len(content_type) > MAX_CONTENT_TYPE_BYTES:
        detail = f"the Content-Type has more than {MAX_CONTENT_TYPE_BYTES} bytes"
        raise malformed(detail)
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        detail = "the only multipart type accepted is multipart/form-data"
        raise Problem(Kind.UNSUPPORTED, detail)
    boundary = options.get(b"boundary")
    if not boundary:
        detail = "the Content-Type multipart/form-data has no boundary"
        raise malformed(detail)
    return boundary


@dataclass
class _Part:
    name: str | None = None
    is_file: bool = False
    content: list[bytes] = field(default_factory=list)


def _images_of(parts: list[_Part]) -> list[bytes]:
    """Return the content of the parts that are images.

    Raises:
        Problem: 400 for a part without a name, or a file of another name, which may be meant as the
            image.
    """
    images = []
    for part in parts:
        if part.name in IMAGE_PARTS:
            images.append(b"".join(part.content))
        elif part.is_file or part.name is None:
            found = "a part without a name" if part.name is None else f"the file {part.name[:32]!r}"
            raise _expected_one_image(found)
    return images


class _Collector:
    """Collects the parts of a form through the parser's callbacks."""

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
            self.parts[-1].is_file = b"filename" in options

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content.append(data[start:end])

    def end(self) -> None:
        self.complete = True


def _parse(body: bytes, boundary: bytes, most: int) -> list[_Part]:
    # A form of N parts has N delimiters after a line break, or N + 1 if it starts with a line
    # break. Counting them is fast; the parser takes a microsecond for each apparent delimiter.
    if body.count(b"\r\n--" + boundary) > most + MAX_TEXT_FIELDS + 1:
        raise _expected_one_image("too many parts") if most == 1 else too_many_images(most)
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


def _expected_one_image(found: str) -> Problem:
    detail = f"expected an image in a part named {_NAMES}; found: {found}"
    return malformed(detail)
