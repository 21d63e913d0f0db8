"""Tests of AVIF, GIF and BMP: what is decoded, and what is refused before it costs anything."""

import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from cifar10.formats.av1 import decoded_pixels
from cifar10.formats.avif import avif_layout
from cifar10.formats.recognise import image_format
from cifar10.images import DecodeLimits, decode_image, inspect_image
from tests.conftest import encode
from tests.service.cases import damaged

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
SEE_THROUGH = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 128, np.uint8)])
CORNERS = np.zeros((40, 60, 3), np.uint8)
CORNERS[:20, :30] = 255
CORNERS[:20, 30:] = (255, 0, 0)


def as_pillow_does(data: bytes) -> np.ndarray:
    """Return the tile that Pillow makes of a picture, with transparency over white."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    picture = picture.resize((32, 32), Image.Resampling.BICUBIC)
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def save(pictures: list[Image.Image], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, append_images=pictures[1:], **options)
    return buffer.getvalue()


def modes(kind: str, *names: str) -> dict[str, bytes]:
    picture = Image.fromarray(PIXELS)
    return {f"{kind} {name}": save([picture.convert(name)], kind) for name in names}


WHOLE = {
    **modes("BMP", "RGB", "L", "P", "1", "RGBA"),
    **modes("GIF", "RGB", "L", "P"),
    **modes("AVIF", "RGB", "L"),
    "AVIF RGBA": encode(SEE_THROUGH, "AVIF"),
    "AVIF 4:4:4": encode(PIXELS, "AVIF", quality=100, subsampling="4:4:4"),
    "GIF interlaced": encode(PIXELS, "GIF", interlace=True),
    "GIF comment": save([Image.fromarray(PIXELS)], "GIF", comment=b"a cat"),
    "GIF transparent": save([Image.fromarray(PIXELS).convert("P")], "GIF", transparency=7),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_pictures_are_decoded_as_pillow_does(data):
    np.testing.assert_allclose(decode_image(data).astype(int), as_pillow_does(data), atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_an_avif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save([Image.fromarray(CORNERS)], "AVIF", exif=exif.tobytes(), quality=100)
    assert inspect_image(data).orientation == orientation
    np.testing.assert_array_equal(decode_image(data), as_pillow_does(data))


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_of_an_animation_only_the_first_frame_is_decoded(kind):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = save(frames, kind, save_all=True)
    np.testing.assert_allclose(decode_image(data).astype(int), as_pillow_does(data), atol=3)
    if kind == "GIF":
        assert len(inspect_image(data).content) < len(data) * 2 // 3


def gif_claiming(width: int, height: int) -> bytes:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + frame


def bmp_claiming(width: int, height: int, compression: int = 0) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + bytes(100)


def avif_claiming(width: int, height: int, frames: int = 1) -> bytes:
    """Return an AVIF of 2,000 × 1,000 pixels whose boxes claim another size, and whose data is
    repeated."""
    data = encode(np.zeros((1_000, 2_000, 3), np.uint8), "AVIF")
    place = data.index(b"ispe") + 8
    data = data[:place] + struct.pack(">II", width, height) + data[place + 8 :]
    begin, length = data.index(b"mdat") + 4, len(data) - data.index(b"mdat") - 4
    data = data.replace(struct.pack(">I", length), struct.pack(">I", length * frames))
    data = data.replace(struct.pack(">I", length + 8), struct.pack(">I", length * frames + 8))
    return data + data[begin:] * (frames - 1)


LARGE = {
    "GIF": gif_claiming(60_000, 60_000),
    "BMP": bmp_claiming(60_000, 60_000),
    "BMP from the top": bmp_claiming(60_000, -60_000),
    "AVIF": avif_claiming(60_000, 60_000),
}
LIMITS = DecodeLimits(max_pixels_whole=3_000_000)


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_large_pictures_are_refused_by_their_header(data):
    with pytest.raises(ImageTooLargeError, match="pixels"):
        inspect_image(data)


def test_an_avif_is_judged_by_what_its_stream_says():
    true = avif_claiming(2_000, 1_000)
    assert inspect_image(true, LIMITS).scans == 1
    with pytest.raises(ImageTooLargeError, match="AVIF file have 10,000,000 pixels"):
        inspect_image(avif_claiming(2_000, 1_000, frames=5), LIMITS)
    assert inspect_image(avif_claiming(20, 10)).scans == 10_000
    with pytest.raises(ImageTooLargeError, match="pixels"):
        inspect_image(avif_claiming(20, 10, frames=50))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def avif_with_parts(*parts: tuple[int, int]) -> bytes:
    """Return the boxes of an AVIF with one picture, whose data is in ``parts`` (begin, length) of
    the file; a length of 0 means all that follows."""
    whole = bytes(4)
    extents = b"".join(struct.pack(">QI", *part) for part in parts)
    iloc = b"\x84\0" + struct.pack(">HHHH", 1, 1, 0, len(parts)) + extents
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"av01"))
    ispe = box(b"ispe", whole + struct.pack(">II", 8, 8))
    ipma = box(b"ipma", whole + struct.pack(">IHBB", 1, 1, 1, 1))
    meta = whole + box(b"pitm", whole + b"\0\1") + box(b"iinf", whole + b"\0\1" + infe)
    meta += box(b"iloc", whole + iloc) + box(b"iprp", box(b"ipco", ispe) + ipma)
    return box(b"ftyp", b"avif" + bytes(4)) + box(b"meta", meta) + box(b"mdat", bytes(1 << 20))


def test_parts_that_overlap_are_not_copied():
    far = (1 << 40, 1)  # outside of the file; must not make up for the others
    data = avif_with_parts(*[(0, 0)] * 200, far)
    tracemalloc.start()
    assert avif_layout(data) is None
    assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
    tracemalloc.stop()


def sequence_header(timing: str) -> bytes:
    """Return a stream whose header has ``timing``, in bits, and then a size of 8 × 8 pixels."""
    size = f"{2:04b}{2:04b}{7:03b}{7:03b}"
    bits = "0000" + "0" + timing + "0" + "00000" + "0" * 12 + "00000" + size
    content = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return bytes((1 << 3 | 2, len(content))) + content + bytes((6 << 3 | 2, 0))


def test_a_header_that_decoders_read_differently_has_no_size():
    assert decoded_pixels(sequence_header("0")) == 64
    ticks = "1" + "0" * 64 + "1"
    assert decoded_pixels(sequence_header(ticks + "00101" + "0")) == 64
    assert decoded_pixels(sequence_header(ticks + "0" * 32 + "1" + "0" * 32 + "0")) is None


BROKEN = {
    "GIF without a frame": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
    "GIF cut short": WHOLE["GIF RGB"][:900],
    "BMP with run lengths": bmp_claiming(10, 10, compression=1),
    "BMP cut short": WHOLE["BMP RGB"][:500],
    "BMP of no height": bmp_claiming(10, 0),
    "AVIF cut short": WHOLE["AVIF RGB"][:-200],
    "AVIF of boxes only": WHOLE["AVIF RGB"][: WHOLE["AVIF RGB"].index(b"mdat")],
    "AVIF with two sizes": WHOLE["AVIF RGB"].replace(b"iinf", b"iloc"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_pictures_are_refused(data):
    with pytest.raises(UndecodableImageError):
        decode_image(data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([WHOLE["GIF RGB"], WHOLE["BMP P"], WHOLE["AVIF RGBA"]]).flatmap(damaged))
def test_damaged_pictures(data):
    with contextlib.suppress(ImageError):
        assert decode_image(data).shape == (32, 32, 3)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=100))
def test_any_bytes_have_a_cost_or_none(stream):
    pixels = decoded_pixels(stream)
    assert pixels is None or pixels > 0


NAMED = {
    "TIFF": encode(PIXELS, "TIFF"),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "SVG": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "base64 text": b"iVBORw0KGgoAAAANSUhEUgAA",
    "a data: URL": b"data:image/png;base64,iVBORw0KGgo",
    "JSON": b' {"image": "iVBORw0KGgo"}',
    "a URL": b"https://example.org/a.jpg",
    "HEIC, as iPhones make it": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a video": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
    "PDF": b"%PDF-1.7",
    "text": b"a cat\n",
    "an empty file": b"",
}


@pytest.mark.parametrize(("name", "data"), NAMED.items(), ids=NAMED)
def test_types_that_are_not_accepted_are_named(name, data, monkeypatch):
    monkeypatch.setattr("cifar10.formats.recognise.decodes_heic", lambda: False)
    with pytest.raises(UnsupportedImageError, match=f"this is {name}"):
        image_format(data)
