"""Hostile and mistaken requests with the refusal each must get, shared by several test modules."""

import io
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from hypothesis import strategies as st

from tests.conftest import encode

PIXELS = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PNG = encode(PIXELS, "PNG")
JPEG = encode(PIXELS, "JPEG")
WEBP = encode(PIXELS, "WEBP", lossless=True)
PHOTO = encode(np.kron(PIXELS, np.ones((9, 12, 1), np.uint8)), "JPEG")


@dataclass(frozen=True)
class Case:
    """A request with the status and kind of its problem document."""

    name: str
    status: int
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    query: str = ""
    method: str = "POST"

    def send_arguments(self) -> dict[str, Any]:
        return {"method": self.method, "url": f"/classify{self.query}", **self.arguments}


def _raw(content: bytes, content_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": content_type}}


def _part(content: bytes, name: str = "image", file_name: str = "a.png") -> dict[str, Any]:
    return {"files": {name: (file_name, content, "image/png")}}


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", header)
        + _png_chunk(b"IDAT", pixels)
        + _png_chunk(b"IEND", b"")
    )


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 5_000_000)
    return buffer.getvalue()


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> dict[str, Any]:
    """Return a hand-made multipart body with the boundary ``b``."""
    content = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end
    return _raw(content, "multipart/form-data; boundary=b")


_IMAGE = b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + PNG
_TEXT = b'Content-Disposition: form-data; name="image"\r\n\r\nhttp://127.0.0.1:1/a.png'

CASES = (
    Case("empty body", 400, "malformed", _raw(b"")),
    Case("text", 415, "unsupported-type", _raw(b"a cat", "text/plain")),
    Case("text in the part", 415, "unsupported-type", _part(b"a cat")),
    Case("json", 415, "unsupported-type", {"json": {"image": "aGVsbG8="}}),
    Case("urlencoded", 415, "unsupported-type", {"data": {"image": "http://127.0.0.1:1/a.png"}}),
    Case("truncated JPEG", 422, "undecodable", _raw(JPEG[: len(JPEG) // 2], "image/jpeg")),
    Case("truncated JPEG in a part", 422, "undecodable", _part(JPEG[: len(JPEG) // 2])),
    Case("PNG magic only", 422, "undecodable", _raw(PNG[:8])),
    Case("60,000 × 60,000", 422, "too-many-pixels", _raw(png_claiming(60_000, 60_000))),
    Case("60,000 × 60,000 in a part", 422, "too-many-pixels", _part(png_claiming(60_000, 60_000))),
    Case("5,000 × 5,000 PNG", 422, "too-many-pixels", _raw(png_claiming(5_000, 5_000))),
    Case("20 MB", 413, "too-large", _raw(b"\0" * 20_000_000)),
    Case("20 MB in a part", 413, "too-large", _part(b"\0" * 20_000_000)),
    Case("zip bomb named .png", 415, "unsupported-type", _part(_zip_bomb())),
    Case("TIFF", 415, "unsupported-type", _part(encode(PIXELS, "TIFF"), file_name="a.tif")),
    Case("pickle", 415, "unsupported-type", _raw(pickle.dumps(PIXELS))),
    Case("URL as a string part", 415, "unsupported-type", form(_TEXT)),
    Case("two images", 400, "malformed", form(_IMAGE, _IMAGE)),
    Case("a hundred images", 400, "malformed", form(*[_IMAGE] * 100)),
    Case("no image part", 400, "malformed", _part(PNG, name="picture")),
    Case("an image and a file", 400, "malformed", form(_IMAGE, _IMAGE.replace(b"image", b"file"))),
    Case("another file", 400, "malformed", form(_IMAGE, _IMAGE.replace(b"image", b"mask"))),
    Case("only a text field", 400, "malformed", form(_TEXT.replace(b'"image"', b'"note"'))),
    Case("many text fields", 400, "malformed", form(_IMAGE, *[_TEXT.replace(b"image", b"n")] * 40)),
    Case("a part without a name", 400, "malformed", form(b"X: y\r\n\r\n" + PNG)),
    Case("an empty part", 400, "malformed", _part(b"")),
    Case("a form without parts", 400, "malformed", form()),
    Case("a form cut short", 400, "malformed", form(_IMAGE, end=b"")),
    Case(
        "a form with another boundary",
        400,
        "malformed",
        _raw(b"--c\r\n", "multipart/form-data; boundary=b"),
    ),
    Case("a form without a boundary", 400, "malformed", _raw(b"--b\r\n", "multipart/form-data")),
    Case(
        "a boundary too long",
        400,
        "malformed",
        _raw(PNG, "multipart/form-data; boundary=" + "b" * 300),
    ),
    Case(
        "a content type too long", 400, "malformed", _raw(PNG, "multipart/form-data; " + "b" * 600)
    ),
    Case("too many part headers", 400, "malformed", form(b"X: y\r\n" * 50 + _IMAGE)),
    Case("a part header too long", 400, "malformed", form(b"X: " + b"y" * 5000 + b"\r\n" + _IMAGE)),
    Case(
        "another multipart type", 415, "unsupported-type", _raw(PNG, "multipart/mixed; boundary=b")
    ),
    Case(
        "a compressed body",
        415,
        "unsupported-type",
        {"content": PNG, "headers": {"content-encoding": "gzip"}},
    ),
    Case("unknown model", 404, "no-such-model", _raw(PNG), "?model=resnet"),
    Case("a model's path", 404, "no-such-model", _raw(PNG), "?model=../../etc/passwd"),
    Case("top_k=abc", 400, "malformed", _raw(PNG), "?top_k=abc"),
    Case("top_k=0", 400, "malformed", _raw(PNG), "?top_k=0"),
    Case("top_k=11", 400, "malformed", _raw(PNG), "?top_k=11"),
    Case("top_k empty", 400, "malformed", _raw(PNG), "?top_k="),
    Case("top_k in Arabic digits", 400, "malformed", _raw(PNG), "?top_k=%D9%A3"),
    Case("top_k twice", 400, "malformed", _raw(PNG), "?top_k=1&top_k=2"),
    Case("explain=1", 400, "malformed", _raw(PNG), "?explain=1"),
    Case("explain twice", 400, "malformed", _raw(PNG), "?explain=true&explain=true"),
    Case("unknown parameter", 400, "malformed", _raw(PNG), "?topk=3"),
    Case("many parameters", 400, "malformed", _raw(PNG), "?" + "a=1&" * 50),
    Case("GET", 405, "method-not-allowed", {}, method="GET"),
    Case("DELETE", 405, "method-not-allowed", {}, method="DELETE"),
)


def assert_refused(case: Case, response: httpx.Response) -> None:
    """Assert that the answer is the problem document that ``case`` expects."""
    assert response.status_code == case.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == case.status
    assert document["type"] == f"urn:problem-type:cifar10:{case.kind}"
    assert document["title"]
    assert document["detail"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw ``whole`` with a few bytes replaced, removed or inserted."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)
