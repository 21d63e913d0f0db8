"""Tests of HEIC: what is decoded, and what is refused before it costs anything."""

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageOps

from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from cifar10.formats import recognise
from cifar10.formats.heic import heic_layout
from cifar10.images import DecodeLimits, decode_image, inspect_image
from tests.service.cases import damaged

pillow_heif = pytest.importorskip(
    "pillow_heif", reason="pillow-heif is not installed: pip install -c constraints.txt pillow-heif"
)

from pillow_heif import as_plugin  # noqa: E402

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
CORNERS = np.zeros((40, 60, 3), np.uint8)
CORNERS[:20, :30] = 255
CORNERS[:20, 30:] = (255, 0, 0)
LIMITS = DecodeLimits(max_pixels_whole=1_000_000)


def heic(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(buffer, **options)
    return buffer.getvalue()


def as_pillow_heif_does(data: bytes) -> np.ndarray:
    """Return the tile that pillow-heif makes of a picture, with transparency over white."""
    picture = pillow_heif.open_heif(data).to_pillow().convert("RGBA")
    picture = picture.resize((32, 32), Image.Resampling.BICUBIC)
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


@pytest.fixture(scope="module")
def tiled() -> bytes:
    """Return a picture of 4 × 3 tiles, as iPhones write it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 64)
        return heic(np.kron(PIXELS, np.ones((4, 4, 1), np.uint8)))


def test_it_is_decoded_as_pillow_heif_does(tiled):
    see_through = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 128, np.uint8)])
    for data in (heic(PIXELS), heic(PIXELS[:31, :45]), heic(see_through), tiled):
        np.testing.assert_array_equal(decode_image(data), as_pillow_heif_does(data))
    layout = inspect_image(tiled)
    assert (layout.kind, layout.width, layout.height) == ("HEIC", 240, 160)
    assert layout.scans == 2  # the tiles are a little larger than the picture, and all are counted


@pytest.mark.parametrize("orientation", range(1, 9))
def test_its_orientation_is_undone_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(CORNERS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(buffer))
    picture.encoderinfo = {"exif": exif.tobytes(), "quality": 100}
    data = io.BytesIO()
    as_plugin._save_heif(picture, data, "photo.heic")  # turns it by boxes, as phones do
    layout = inspect_image(data.getvalue())
    assert (layout.width, layout.height, layout.orientation) == (*expected.size, 1)
    found = decode_image(data.getvalue()).astype(int)
    wanted = np.asarray(expected.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    for place in ((8, 8), (8, 24), (24, 8), (24, 24)):
        assert np.abs(found[place] - wanted[place]).max() < 20


def test_no_decoder_gets_its_metadata():
    picture = pillow_heif.from_pillow(Image.fromarray(PIXELS))
    picture.info.update(exif=Image.Exif().tobytes() + b"x" * 99, xmp=b"<x:xmpmeta/>")
    buffer = io.BytesIO()
    picture.save(buffer)
    content = inspect_image(buffer.getvalue()).content
    assert pillow_heif.open_heif(buffer.getvalue()).info["exif"]
    assert not pillow_heif.open_heif(content).info["exif"]
    assert not pillow_heif.open_heif(content).info.get("xmp")


def claiming(data: bytes, size: tuple[int, int], other: tuple[int, int]) -> bytes:
    """Return the file with another size in its boxes."""
    true, false = (struct.pack(">II", *one) for one in (size, other))
    assert data.count(true) == 1
    return data.replace(true, false)


def test_it_is_judged_by_what_its_streams_say():
    flat = heic(np.zeros((1_024, 1_024, 3), np.uint8))
    with pytest.raises(ImageTooLargeError, match=r"HEIC image is 1024 × 1024 = 1,048,576 pixels"):
        inspect_image(flat, LIMITS)
    small = claiming(flat, (1_024, 1_024), (64, 64))
    assert inspect_image(small).scans == 256
    with pytest.raises(ImageTooLargeError, match="in the HEIC file have 1,048,576 pixels"):
        inspect_image(small, DecodeLimits(max_pixels_whole=300_000))
    with pytest.raises(ImageTooLargeError, match="3,600,000,000 pixels"):
        inspect_image(claiming(flat, (1_024, 1_024), (60_000, 60_000)))


def test_a_grid_must_be_what_its_tiles_are(tiled):
    size = struct.pack(">HH", 240, 160)
    assert tiled.count(size) == 1
    for spoilt in (
        tiled.replace(size, struct.pack(">HH", 24_000, 16_000)),
        tiled.replace(size, struct.pack(">HH", 240, 100)),
        tiled.replace(bytes([2, 3]) + size, bytes([200, 200]) + size),
        tiled.replace(b"dimg", b"cdsc"),
    ):
        assert spoilt != tiled
        assert heic_layout(spoilt) is None
        with pytest.raises(UndecodableImageError, match="header is damaged"):
            inspect_image(spoilt)


def test_transparency_is_not_decoded_with_every_tile(tiled):
    """An auxiliary picture of a tile would be decoded each time a grid names the tile."""
    see_through = heic(np.dstack([PIXELS, np.full(PIXELS.shape[:2], 128, np.uint8)]))
    assert heic_layout(see_through) is not None
    assert heic_layout(tiled.replace(b"dimg", b"auxl")) is None
    assert heic_layout(see_through.replace(b"auxl", b"dimg")) is not None


WHOLE = heic(PIXELS)


@given(damaged(WHOLE))
@settings(max_examples=150, deadline=None)
def test_damage_never_raises_anything_else(data):
    with contextlib.suppress(ImageError):
        decode_image(data, LIMITS)


def test_without_the_package_the_refusal_says_what_to_do(monkeypatch):
    monkeypatch.setattr(recognise, "decodes_heic", lambda: False)
    message = "this is HEIC, as iPhones make it; send JPEG, or install the extra `heic`"
    with pytest.raises(UnsupportedImageError, match=message):
        decode_image(WHOLE)
