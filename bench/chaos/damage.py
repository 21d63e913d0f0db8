"""Mutate valid content: arbitrary bytes, and the structure of images, JSON and HTTP.

The first check rejects purely random bytes. Damage that preserves the structure, with repaired
checksums and lengths, reaches the code behind it. All damage comes from a seeded generator.
"""

import contextlib
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from bench.chaos.pictures import Segment, join, segments

T = TypeVar("T")

_LARGE_NUMBERS: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_MOST_DAMAGE: Final = 6
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS: Final = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt",
    b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"bKGD", b"sBIT", b"oFFs",
)  # fmt: skip
_JPEG_MARKERS: Final = (
    0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCC, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED,
    0xEE, 0xFE,
)  # fmt: skip
_WEBP_KINDS: Final = (
    b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP ",
)  # fmt: skip
_HOSTILE_VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**40, 1e308, -0.0, float("nan"), float("inf"), "",
    "x" * 5_000, "\ud800", "\x00", "é" * 50, [], {}, [[]], [[[[[[]]]]]], {"": {"": {}}}, "UINT8",
    [0] * 100, {"name": "image"},
)  # fmt: skip


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return ``data`` with one to six random mutations."""
    out = bytearray(data)
    for _ in range(chance.randint(1, _MOST_DAMAGE)):
        if not out:
            break
        at = chance.randrange(len(out))
        match chance.randrange(6):
            case 0:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at] = chance.randrange(256)
            case 2:
                del out[at : at + chance.randint(1, 64)]
            case 3:
                out[at:at] = out[at : at + chance.randint(1, 64)]
            case 4:
                number = chance.choice(_LARGE_NUMBERS)
                order = chance.choice((">I", "<I"))
                out[at : at + 4] = struct.pack(order, number)
            case _:
                del out[at:]
    return bytes(out)


def damage_image(image: bytes, chance: random.Random) -> bytes:
    """Mutate the parts of a PNG, JPEG or WebP, then repair lengths and checksums."""
    if image.startswith(_PNG_SIGNATURE):
        return _damage_png(image, chance)
    if image.startswith(b"\xff\xd8"):
        return _damage_jpeg(image, chance)
    return _damage_webp(image, chance)


def _damage_png(image: bytes, chance: random.Random) -> bytes:
    parts = []
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(image):
        length = int.from_bytes(image[at : at + 4], "big")
        parts.append((image[at + 4 : at + 8], image[at + 8 : at + 8 + length]))
        at += 12 + length

    def change(part: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        kind, content = part
        if kind == b"IDAT" and chance.random() < 0.5:
            rows = b""
            with contextlib.suppress(zlib.error):  # the data may be damaged already
                rows = zlib.decompressobj().decompress(content, 1 << 20)
            return kind, zlib.compress(damage(rows, chance), 1)
        return kind, damage(content, chance) if content else chance.randbytes(chance.randrange(64))

    def new() -> tuple[bytes, bytes]:
        content = chance.randbytes(chance.randrange(200))
        if chance.random() < 0.5:
            content = b"key\0\0" + zlib.compress(content * chance.choice((1, 100, 2_000)), 1)
        return chance.choice(_PNG_KINDS), content

    def to_bytes(part: tuple[bytes, bytes]) -> bytes:
        kind, content = part
        checksum = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")

    return _PNG_SIGNATURE + b"".join(map(to_bytes, _shuffle(parts, change, new, chance)))


def _damage_jpeg(image: bytes, chance: random.Random) -> bytes:
    def change(part: Segment) -> Segment:
        if part.coded and chance.random() < 0.5:
            return Segment(part.marker, part.content, damage(part.coded, chance))
        return Segment(part.marker, damage(part.content, chance), part.coded)

    def new() -> Segment:
        start = chance.choice((b"", b"Exif\0\0II*\0", b"MPF\0MM\0*", b"Adobe\0d", b"JFIF\0\1\2"))
        content = start + chance.randbytes(chance.randrange(120))
        return Segment(chance.choice(_JPEG_MARKERS), content)

    return join(_shuffle(list(segments(image)), change, new, chance))


def _damage_webp(image: bytes, chance: random.Random) -> bytes:
    parts = []
    at = 12
    while at + 8 <= len(image):
        length = int.from_bytes(image[at + 4 : at + 8], "little")
        parts.append((image[at : at + 4], image[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2

    def change(part: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return part[0], damage(part[1], chance)

    def new() -> tuple[bytes, bytes]:
        return chance.choice(_WEBP_KINDS), chance.randbytes(chance.randrange(64))

    content = b"WEBP" + b"".join(
        kind + len(part).to_bytes(4, "little") + part + b"\0" * (len(part) % 2)
        for kind, part in _shuffle(parts, change, new, chance)
    )
    return b"RIFF" + len(content).to_bytes(4, "little") + content


def _shuffle(
    parts: list[T], change: Callable[[T], T], new: Callable[[], T], chance: random.Random
) -> list[T]:
    """Apply one to four random changes to a list of parts."""
    out = list(parts)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if out else 0
        match chance.randrange(7) if out else 6:
            case 0 | 1 | 2:
                out[at] = change(out[at])
            case 3:
                del out[at]
            case 4:
                out.insert(chance.randrange(len(out) + 1), out[at])
            case 5:
                out.insert(chance.randrange(len(out)), out.pop(at))
            case _:
                out.insert(at, new())
    return out


def damage_document(document: Any, chance: random.Random) -> Any:
    """Return a copy of a JSON document with one to three values replaced, removed or duplicated."""
    for _ in range(chance.randint(1, 3)):
        document = _replace(document, chance)
    return document


def _replace(node: Any, chance: random.Random) -> Any:
    if isinstance(node, dict) and node and chance.random() < 0.9:
        name = chance.choice(list(node))
        match chance.randrange(8):
            case 0:
                return {key: value for key, value in node.items() if key != name}
            case 1:
                return {**node, chance.choice(("", "id", "parameters", name * 2)): node[name]}
            case _:
                return {**node, name: _replace(node[name], chance)}
    if isinstance(node, list) and node and chance.random() < 0.8:
        at = chance.randrange(len(node))
        match chance.randrange(8):
            case 0:
                return node[:at] + node[at + 1 :]
            case 1:
                return node[: at + 1] * 2 + node[at + 1 :]
            case _:
                return [*node[:at], _replace(node[at], chance), *node[at + 1 :]]
    return chance.choice(_HOSTILE_VALUES)


def damage_head(request: bytes, chance: random.Random) -> bytes:
    """Mutate, duplicate, drop or replace the request line or header lines of a request."""
    head, _, body = request.partition(b"\r\n\r\n")

    def change(line: bytes) -> bytes:
        name, colon, _ = line.partition(b":")
        if colon and chance.random() < 0.5:
            return name + colon + b" " + chance.choice(_HEADER_VALUES)
        return damage(line, chance) if line else b"x"

    def new() -> bytes:
        return chance.choice(_HEADER_LINES)

    lines = _shuffle(head.split(b"\r\n"), change, new, chance)
    end = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    return end.join(lines) + end + end + body


_HEADER_VALUES: Sequence[bytes] = (
    b"", b"0", b"-1", b"1e3", b"+5", b"0x10", b"99999999999999999999", b"chunked", b"chunked, gzip",
    b"identity", b"gzip", b"close", b"keep-alive", b"upgrade", b"100-continue", b"\xff\xfe",
    b"a" * 9_000, b"multipart/form-data; boundary=" + b"b" * 80, b"application/x-npy",
    b"multipart/form-data", b"text/html", b"Bearer x",
    b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01",
)  # fmt: skip
_HEADER_LINES: Sequence[bytes] = (
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 5, 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding : chunked", b"Connection: Upgrade",
    b"Upgrade: h2c", b"Upgrade: websocket", b"Expect: 100-continue", b"Host: a", b" folded",
    b"Content-Encoding: gzip", b"Content-Encoding: br", b"Trailer: Authorization", b"TE: trailers",
    b"Inference-Header-Content-Length: 10", b"traceparent: 00-x", b"X-Forwarded-For: 1.2.3.4",
    b"Origin: null", b"Accept: text/html", b"Content-Type: application/x-npy", b"no colon", b": x",
    b"X: " + b"y" * 70_000,
)  # fmt: skip
