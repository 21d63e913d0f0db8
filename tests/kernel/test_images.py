"""Bytes to pixels."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10.environment import PROJECT_ROOT
from cifar10.errors import (
    ImageError,
    ImageTooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)
from cifar10.images import DecodeLimits, decode_image, decode_tile
from tests.conftest import encode

TILE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without sharp edges, which survives resizing: red falls, green rises."""
    rows = np.linspace(0, 255, height)[:, None]
    columns = np.linspace(0, 255, width)[None, :]
    channels = np.broadcast_arrays(255 - rows, columns, (rows + columns) / 2)
    return np.stack(channels, axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("options", [{}, {"kind": "WEBP", "lossless": True}])
def test_a_tile_keeps_its_pixels(options):
    assert np.array_equal(decode_image(encode(TILE, **options)), TILE)


def test_a_jpeg_tile_is_what_pillow_decodes():
    data = encode(TILE, "JPEG", quality=75)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("shape", [(8, 8), (31, 33), (300, 200), (1200, 1600)])
def test_any_size_becomes_a_tile_of_the_same_picture(kind, shape):
    tile = decode_image(encode(smooth(*shape), kind))
    assert (tile.shape, tile.dtype) == ((32, 32, 3), np.uint8)
    assert tile.flags.c_contiguous
    assert np.abs(tile.astype(int) - smooth(32, 32)).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(orientation):
    """The eight cases of EXIF 2.32: what a camera stored, shown upright."""
    upright = smooth(64, 64)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.abs(decode_image(data).astype(int) - smooth(32, 32)).max() < 12


def test_damaged_exif_does_not_refuse_a_sound_picture():
    data = saved(Image.fromarray(TILE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert np.array_equal(decode_image(data), TILE)


def test_greyscale_and_bilevel_and_palette():
    grey = Image.fromarray(TILE[:, :, 0])
    assert np.array_equal(decode_image(saved(grey, "PNG"))[:, :, 2], TILE[:, :, 0])
    bilevel = decode_image(saved(grey.convert("1"), "PNG"))
    assert set(np.unique(bilevel)) == {0, 255}
    palette = Image.fromarray(TILE).quantize(16)
    assert np.array_equal(decode_image(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_greyscale_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)
    tile = decode_image(saved(Image.fromarray(values), "PNG"))
    assert np.abs(tile[:, :, 0].astype(float) - values / 257.0).max() <= 0.5


def test_transparency_lies_over_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:, 3] = 255  # the left half is clear, the right half black
    tile = decode_image(saved(Image.fromarray(pixels), "PNG"))
    assert (tile[:, :16] == 255).all()
    assert (tile[:, 16:] == 0).all()


def test_transparent_palette_and_grey_alpha():
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (decode_image(saved(palette, "PNG", transparency=0)) == 255).all()
    grey = Image.new("LA", (64, 64), (0, 0))
    assert (decode_image(saved(grey, "PNG")) == 255).all()


def test_cmyk_jpeg():
    data = saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG")
    red = decode_image(data).reshape(-1, 3).mean(0)
    assert red[0] > 200 > 60 > red[1]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for kind in ("WEBP", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert decode_image(data)[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_is_the_same_picture_as_a_full_decode():
    photo = smooth(2400, 3200)
    data = encode(photo, "JPEG", quality=90)
    full = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    difference = np.abs(decode_image(data).astype(int) - np.asarray(full))
    assert difference.mean() < 3


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"hello, world", b"GIF89a" + b"\0" * 50, b"PK\x03\x04", b"\x80\x04K\x01.", b"BM"],
)
def test_other_content_is_unsupported(content):
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG or WebP"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_is_undecodable(kind):
    data = encode(smooth(100, 100), kind)
    with pytest.raises(UndecodableImageError, match=kind):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("side", [6_000, 60_000])
def test_too_many_pixels_are_refused_by_the_header(side):
    with pytest.raises(ImageTooLargeError, match="pixels"):
        decode_image(png_claiming(side, side))


def test_progressive_jpeg_is_bound_like_a_png():
    limits = DecodeLimits(max_pixels=100 * 100, max_pixels_whole=50 * 50)
    picture = smooth(80, 80)
    assert decode_image(encode(picture, "JPEG"), limits).shape == (32, 32, 3)
    with pytest.raises(ImageTooLargeError):
        decode_image(encode(picture, "JPEG", progressive=True), limits)
    with pytest.raises(ImageTooLargeError):
        decode_image(encode(picture, "PNG"), limits)


def test_too_many_bytes_are_refused():
    with pytest.raises(ImageTooLargeError, match="bytes"):
        decode_image(encode(TILE), DecodeLimits(max_bytes=100))


def test_a_tile_is_never_resized():
    assert np.array_equal(decode_tile(encode(TILE)), TILE)
    with pytest.raises(UndecodableImageError, match="33 × 32"):
        decode_tile(encode(smooth(32, 33)))


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 200),
)
def test_damage_never_raises_anything_else(kind, edits, cut):
    data = bytearray(encode(TILE, kind))
    for position, value in edits:
        data[position % len(data)] = value
    try:
        tile = decode_image(bytes(data[: len(data) - cut]))
    except ImageError:
        return
    assert tile.shape == (32, 32, 3)


def test_no_image_makes_pillow_load_all_the_types_it_knows(tmp_path):
    """Some 40 modules, at the first WebP: tens of milliseconds of some client's request."""
    for kind in ("PNG", "JPEG", "WEBP"):
        (tmp_path / kind).write_bytes(saved(Image.fromarray(TILE), kind))
    program = (
        "import sys; from pathlib import Path; from cifar10.images import decode_image\n"
        "before = set(sys.modules)\n"
        "for kind in ('PNG', 'JPEG', 'WEBP'): decode_image(Path(sys.argv[1], kind).read_bytes())\n"
        "print([name for name in set(sys.modules) - before if name.startswith('PIL.')])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    found = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
