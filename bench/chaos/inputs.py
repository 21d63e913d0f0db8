"""Hostile inputs, generated from a seed: equal numbers give equal inputs.

They contain no data of a data set. Most start as a valid request and are then mutated; some are
random bytes from the start.
"""

import functools
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.chaos.damage import damage, damage_document, damage_head, damage_image
from bench.chaos.raw import BOUNDARY, form_bytes, request_bytes

_SIZES: Final = ((32, 32), (33, 31), (70, 50))
_NPY_HEADER: Final = 128
"""Length in bytes of the header that NumPy writes before such an array."""
_PIXELS: Final = "the pixels of one image"
_PIXELS_TEXT: Final = ", ".join(["7"] * 3_072)
_PACKED_SHARE: Final = 0.3
_PATHS: Final = (
    "/classify", "/classify/batch", "/models/", "/v2/models/", "/%2e%2e/", "//", "/v2", "/",
)  # fmt: skip
_STARTS: Final = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"GET ")
"""First bytes of HTTP/2, TLS and HTTP/1.1 connections."""


@dataclass(frozen=True)
class HostileInput:
    """Bytes to send on one connection."""

    kind: str
    content: bytes
    well_formed: bool = True
    """Whether the head is well-formed HTTP with the true body length, which requires a response."""


class Fuzzer:
    """Generator of hostile inputs by number.

    Args:
        model: name of a model on the server, for the v2 routes.
    """

    def __init__(self, seed: int, model: str) -> None:
        self._seed = seed
        self._infer = f"/v2/models/{model}/infer"
        self._images = _seed_images(seed)
        self._kinds: tuple[Callable[[random.Random], HostileInput], ...] = (
            self._image,
            self._image_structure,
            self._form,
            self._batch_form,
            self._array,
            self._tensor_json,
            self._tensor_structure,
            self._tensor_binary,
            self._query,
            self._head,
            self._chunks,
            self._pipeline,
            self._raw,
            self._image_structure,
        )

    def input(self, number: int) -> HostileInput:
        """Return input ``number``; the kinds alternate."""
        chance = random.Random(self._seed << 40 | number)  # noqa: S311 - reproducible, not secret
        return self._kinds[number % len(self._kinds)](chance)

    def _image(self, chance: random.Random) -> HostileInput:
        return _post("image", "/classify", damage(chance.choice(self._images), chance))

    def _image_structure(self, chance: random.Random) -> HostileInput:
        image = damage_image(chance.choice(self._images), chance)
        return _post("image structure", "/classify", image)

    def _form(self, chance: random.Random) -> HostileInput:
        body = damage(form_bytes([chance.choice(self._images)]), chance)
        return _post("form", "/classify", body, _form_type(chance))

    def _batch_form(self, chance: random.Random) -> HostileInput:
        how = chance.choice((damage, damage_image))
        images = [how(chance.choice(self._images), chance) for _ in range(chance.randint(1, 6))]
        body = form_bytes(images)
        body = damage(body, chance) if chance.random() < 0.5 else body
        return _post("batch form", "/classify/batch", body, _form_type(chance))

    def _array(self, chance: random.Random) -> HostileInput:
        kind = chance.choice((np.uint8, np.uint8, np.float32, np.bool_))
        shape = chance.choice(((32, 32, 3), (32, 32, 3), (3, 32, 32), (), (32,)))
        stream = io.BytesIO()
        np.save(stream, np.zeros((chance.randint(0, 4), *shape), kind))
        whole = stream.getvalue()
        if chance.random() < 0.3:
            opening = chance.choice((b"(True,", b"(-1,", b"(2**9,", b"(("))
            header = whole[:_NPY_HEADER].replace(b"(", opening, 1)
            # Keep the header's length by padding it with spaces before the line break.
            header = header[: _NPY_HEADER - 1] + b"\n"
            whole = header + whole[_NPY_HEADER:]
        head = whole[:_NPY_HEADER]
        body = (damage(head, chance) if chance.random() < 0.7 else head) + whole[_NPY_HEADER:]
        return _post("array", "/classify/batch", body, "application/x-npy")

    def _tensor_json(self, chance: random.Random) -> HostileInput:
        count = chance.randint(0, 2)
        shape = [chance.choice((count, -1, 2**40)), 32, 32, 3]
        document = _infer_document(shape, chance.choice(("UINT8", "FP32", "BYTES", "")), count)
        body = _json(document)
        if chance.random() < 0.8:
            body = damage(body, chance)
        return self._infer_post("v2 JSON", body, chance)

    def _tensor_structure(self, chance: random.Random) -> HostileInput:
        document = damage_document(_infer_document([1, 32, 32, 3], "UINT8", 1), chance)
        return self._infer_post("v2 structure", _json(document), chance)

    def _infer_post(self, kind: str, body: bytes, chance: random.Random) -> HostileInput:
        if chance.random() >= _PACKED_SHARE:
            return _post(kind, self._infer, body, "application/json")
        packed = zlib.compress(body, 1, wbits=31)
        if chance.random() < 0.5:
            packed = damage(packed, chance)
        encoded = ("Content-Encoding", chance.choice(("gzip", "deflate")))
        return _post(kind, self._infer, packed, "application/json", encoded)

    def _tensor_binary(self, chance: random.Random) -> HostileInput:
        count = chance.randint(1, 3)
        pixels = bytes(count * 3072)
        tensor = {
            "name": "image",
            "datatype": "UINT8",
            "shape": [count, 32, 32, 3],
            "parameters": {"binary_data_size": chance.choice((len(pixels), 0, -1, 2**50))},
        }
        document: Any = {"inputs": [tensor]}
        if chance.random() < 0.5:
            document = damage_document(document, chance)
        head = json.dumps(document).encode()
        length = chance.choice((len(head), len(head), 0, len(head) + 7, 10**17))
        body = (damage(head, chance) if chance.random() < 0.5 else head) + pixels
        told = ("Inference-Header-Content-Length", str(length))
        return _post("v2 binary", self._infer, body, "application/octet-stream", told)

    def _query(self, chance: random.Random) -> HostileInput:
        letters = "".join(chance.choice("abk_=&%2f%C3?0123-./") for _ in range(24))
        name = chance.choice(("model", "top_k", "explain", "", "x"))
        path = chance.choice(_PATHS)
        route = f"{path}?{name}={letters}" if chance.random() < 0.7 else path + letters
        method = chance.choice(("POST", "GET", "PUT", "OPTIONS", "DELETE"))
        content = request_bytes(method, route, self._images[0])
        return HostileInput("query", content)

    def _valid(self, chance: random.Random) -> bytes:
        """Return a request that would get a 200."""
        match chance.randrange(5):
            case 0:
                return request_bytes("GET", chance.choice(("/livez", "/v2", "/models", "/readyz")))
            case 1:
                typed = (("Content-Type", _form_type(None)),)
                return request_bytes("POST", "/classify", form_bytes([self._images[0]]), typed)
            case 2:
                body = _json(_infer_document([1, 32, 32, 3], "UINT8", 1))
                return request_bytes("POST", self._infer, body)
            case _:
                return request_bytes("POST", "/classify", self._images[0])

    def _head(self, chance: random.Random) -> HostileInput:
        return HostileInput("head", damage_head(self._valid(chance), chance), well_formed=False)

    def _chunks(self, chance: random.Random) -> HostileInput:
        head = request_bytes("POST", "/classify", headers=_upgrade(chance), chunked=True)
        body = self._images[0]
        made = b""
        while body:
            size = chance.choice((1, 7, 64, 1_000))
            piece, body = body[:size], body[size:]
            extension = b";x=y" if chance.random() < 0.1 else b""
            made += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
        trailer = b"Authorization: Bearer x\r\nContent-Length: 3\r\n" * chance.choice((0, 0, 1, 50))
        made += b"0\r\n" + trailer + b"\r\n"
        if chance.random() < 0.7:
            made = damage(made, chance)
        return HostileInput("chunks and trailers", head + made, well_formed=False)

    def _pipeline(self, chance: random.Random) -> HostileInput:
        requests = [
            self._valid(chance) if chance.random() < 0.3 else request_bytes("GET", "/livez")
            for _ in range(chance.randint(2, 6))
        ]
        at = chance.randrange(len(requests))
        requests[at] = damage(requests[at], chance)
        return HostileInput("pipeline", b"".join(requests), well_formed=False)

    def _raw(self, chance: random.Random) -> HostileInput:
        match chance.randrange(3):
            case 0:
                content = chance.randbytes(chance.randint(1, 400))
            case 1:
                content = damage(self._valid(chance), chance)
            case _:
                content = chance.choice(_STARTS) + chance.randbytes(chance.randint(1, 200))
        return HostileInput("raw bytes", content, well_formed=False)


@functools.cache
def _seed_images(seed: int) -> tuple[bytes, ...]:
    chance = np.random.default_rng(seed)
    made = []
    for width, height in _SIZES:
        picture = Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for name, mode, options in (
            ("PNG", "RGB", {}),
            ("PNG", "RGBA", {}),
            ("PNG", "P", {}),
            ("PNG", "L", {}),
            ("JPEG", "RGB", {}),
            ("JPEG", "L", {}),
            ("JPEG", "CMYK", {}),
            ("JPEG", "RGB", {"progressive": True}),
            ("WEBP", "RGB", {"lossless": True}),
            ("WEBP", "RGBA", {}),
        ):
            stream = io.BytesIO()
            picture.convert(mode).save(stream, name, **options)
            made.append(stream.getvalue())
    return tuple(made)


def _infer_document(shape: list[int], datatype: str, count: int) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": [_PIXELS] * count}
    return {"id": "x", "inputs": [tensor], "outputs": [{"name": "probabilities"}]}


def _json(document: Any) -> bytes:
    """Return the document as JSON, with the prepared text of the pixels inserted for speed."""
    return json.dumps(document).replace(f'"{_PIXELS}"', _PIXELS_TEXT).encode()


def _post(
    kind: str, route: str, body: bytes, content_type: str = "", *headers: tuple[str, str]
) -> HostileInput:
    typed = (("Content-Type", content_type),) if content_type else ()
    return HostileInput(kind, request_bytes("POST", route, body, (*typed, *headers)))


def _form_type(chance: random.Random | None) -> str:
    boundary = BOUNDARY
    if chance is not None and chance.random() < 0.1:
        boundary = chance.choice(("", "b" * 300, 'cha"os', "chaos2"))
    return f"multipart/form-data; boundary={boundary}"


def _upgrade(chance: random.Random) -> tuple[tuple[str, str], ...]:
    return (("Connection", "Upgrade"), ("Upgrade", "h2c")) if chance.random() < 0.3 else ()


def each(fuzzer: Fuzzer, first: int, count: int) -> Iterator[tuple[int, HostileInput]]:
    """Yield inputs in order: (number, input)."""
    return ((number, fuzzer.input(number)) for number in range(first, first + count))
