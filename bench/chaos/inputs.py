"""Hostile inputs, made from a seed: the same number always gives the same request.

Nothing of a data set is in them. Each begins as a request that would be answered and is then
damaged: bytes flipped, cut out, doubled, put elsewhere; numbers in headers made large.
"""

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

_BOUNDARY: Final = "chaos"
_SIZES: Final = ((32, 32), (33, 31), (200, 150))
_LARGE_NUMBERS: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_MOST_DAMAGE: Final = 6


@dataclass(frozen=True)
class HostileRequest:
    """One request: its head is always well-formed HTTP, so that an answer must come."""

    kind: str
    route: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def bytes_for(self, host: str) -> bytes:
        """As it is sent."""
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        head = (
            f"POST {self.route} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n{extra}\r\n"
        )
        return head.encode("latin-1") + self.body


class Fuzzer:
    """Damaged requests, by number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._images = tuple(_seed_images(seed))
        self._kinds: tuple[Callable[[random.Random], HostileRequest], ...] = (
            self._image,
            self._form,
            self._batch_form,
            self._array,
            self._tensor_json,
            self._tensor_binary,
            self._query,
        )

    def request(self, number: int) -> HostileRequest:
        """Request ``number``; kinds take turns."""
        chance = random.Random(f"{self._seed}:{number}")  # noqa: S311 - reproducible, not secret
        return self._kinds[number % len(self._kinds)](chance)

    def _image(self, chance: random.Random) -> HostileRequest:
        body = damage(chance.choice(self._images), chance)
        return HostileRequest("image", "/classify", "application/octet-stream", body)

    def _form(self, chance: random.Random) -> HostileRequest:
        body = damage(_form_of([chance.choice(self._images)]), chance)
        return HostileRequest("form", "/classify", _form_type(chance), body)

    def _batch_form(self, chance: random.Random) -> HostileRequest:
        images = [damage(chance.choice(self._images), chance) for _ in range(chance.randint(1, 6))]
        body = _form_of(images)
        body = damage(body, chance) if chance.random() < 0.5 else body
        return HostileRequest("batch form", "/classify/batch", _form_type(chance), body)

    def _array(self, chance: random.Random) -> HostileRequest:
        stream = io.BytesIO()
        np.save(stream, np.zeros((chance.randint(0, 4), 32, 32, 3), np.uint8))
        whole = stream.getvalue()
        body = damage(whole[:128], chance) + whole[128:]
        return HostileRequest("array", "/classify/batch", "application/x-npy", body)

    def _tensor_json(self, chance: random.Random) -> HostileRequest:
        count = chance.randint(0, 2)
        tensor = {
            "name": "image",
            "datatype": chance.choice(("UINT8", "FP32", "BYTES", "")),
            "shape": [chance.choice((count, -1, 2**40)), 32, 32, 3],
            "data": [chance.randint(0, 255)] * (count * 3072),
        }
        body = json.dumps({"id": "x", "inputs": [tensor], "outputs": [{"name": "probabilities"}]})
        damaged = damage(body.encode(), chance) if chance.random() < 0.8 else body.encode()
        headers: tuple[tuple[str, str], ...] = ()
        if chance.random() < 0.3:
            damaged = damage(gzip.compress(damaged), chance)
            headers = (("Content-Encoding", "gzip"),)
        return HostileRequest("v2 JSON", _infer(), "application/json", damaged, headers)

    def _tensor_binary(self, chance: random.Random) -> HostileRequest:
        count = chance.randint(1, 3)
        pixels = bytes(count * 3072)
        tensor = {
            "name": "image",
            "datatype": "UINT8",
            "shape": [count, 32, 32, 3],
            "parameters": {"binary_data_size": chance.choice((len(pixels), 0, -1, 2**50))},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        length = chance.choice((len(head), 0, len(head) + 7, 10**17))
        body = damage(head, chance) + pixels
        headers = (("Inference-Header-Content-Length", str(length)),)
        return HostileRequest("v2 binary", _infer(), "application/octet-stream", body, headers)

    def _query(self, chance: random.Random) -> HostileRequest:
        letters = "".join(
            chance.choice("abk_=&%2fé?0123-./".replace("é", "%C3")) for _ in range(24)
        )
        name = chance.choice(("model", "top_k", "", "x"))
        route = f"/classify?{name}={letters}"
        return HostileRequest("query", route, "image/png", chance.choice(self._images))


def damage(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to six things done to it."""
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


def bombs() -> Iterator[HostileRequest]:
    """Small bodies that ask for much: memory, time, recursion."""
    for side in (5_000, 20_000, 60_000, 2**31 - 1):
        yield HostileRequest(f"PNG of {side:,}²", "/classify", "image/png", _png(side, side))
    yield HostileRequest("PNG, one row too long", "/classify", "image/png", _png(2**31 - 1, 1))
    black = io.BytesIO()
    Image.new("RGB", (4_800, 4_800)).save(black, "PNG")
    yield HostileRequest("PNG of 23 megapixels", "/classify", "image/png", black.getvalue())
    wide = io.BytesIO()
    Image.new("RGB", (7_900, 7_900)).save(wide, "JPEG", quality=1)
    yield HostileRequest("JPEG of 62 megapixels", "/classify", "image/jpeg", wide.getvalue())
    unpacked = gzip.compress(b"\0" * (256 << 20), 9)
    encoded = (("Content-Encoding", "gzip"),)
    yield HostileRequest("gzip of 256 MiB", _infer(), "application/json", unpacked, encoded)
    deep = b'{"inputs":' + b"[" * 100_000
    yield HostileRequest("100,000 brackets", _infer(), "application/json", deep)
    parts = _form_of([b"x"] * 20_000)
    yield HostileRequest("20,000 parts", "/classify/batch", _form_type(None), parts)
    almost = b"\r\n--" + _BOUNDARY.encode()[:-1]
    near = almost * 400_000
    yield HostileRequest("400,000 near-boundaries", "/classify/batch", _form_type(None), near)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999, 32, 32, 3), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    yield HostileRequest("array of 3 TB", "/classify/batch", "application/x-npy", array)
    literal = b"(" * 400
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(literal)) + literal
    yield HostileRequest("nested array header", "/classify/batch", "application/x-npy", array)


def _seed_images(seed: int) -> Iterator[bytes]:
    chance = np.random.default_rng(seed)
    for width, height in _SIZES:
        picture = Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for name, options in (
            ("PNG", {}),
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("WEBP", {"lossless": True}),
            ("WEBP", {}),
        ):
            stream = io.BytesIO()
            picture.save(stream, name, **options)
            yield stream.getvalue()


def _form_of(images: list[bytes]) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"\r\n\r\n'.encode()
    return b"".join(head + one + b"\r\n" for one in images) + f"--{_BOUNDARY}--\r\n".encode()


def _form_type(chance: random.Random | None) -> str:
    boundary = _BOUNDARY
    if chance is not None and chance.random() < 0.1:
        boundary = chance.choice(("", "b" * 300, 'cha"os', "chaos2"))
    return f"multipart/form-data; boundary={boundary}"


def _infer() -> str:
    return "/v2/models/{model}/infer"


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
