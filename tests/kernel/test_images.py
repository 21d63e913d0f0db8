"""Tests of decoding and resizing images."""

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
from tests.kernel.hostile_images import chunk, saved, with_chunks

TILE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Return a picture without sharp edges, which survives resizing: red falls, green rises."""
    rows = np.linspace(0, 255, height)[:, None]
    columns = np.linspace(0, 255, width)[None, :]
    channels = np.broadcast_arrays(255 - rows, columns, (rows + columns) / 2)
    return np.stack(channels, axis=-1).astype(np.uint8)


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

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
def test_images_of_any_size_are_resized_to_the_same_picture(kind, shape):
    tile = decode_image(encode(smooth(*shape), kind))
    assert (tile.shape, tile.dtype) == ((32, 32, 3), np.uint8)
    assert tile.flags.c_contiguous
    assert np.abs(tile.astype(int) - smooth(32, 32)).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(orientation):
    """Test the eight cases of EXIF 2.32."""
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


def test_an_intact_picture_with_damaged_exif_is_decoded():
    data = saved(Image.fromarray(TILE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    assert np.array_equal(decode_image(data), TILE)


def test_greyscale_bilevel_and_palette_images():
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


def test_transparency_is_composited_over_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:, 3] = 255  # the left half is clear, the right half black
    tile = decode_image(saved(Image.fromarray(pixels), "PNG"))
    assert (tile[:, :16] == 255).all()
    assert (tile[:, 16:] == 0).all()


def test_transparent_palette_and_greyscale_with_alpha():
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (decode_image(saved(palette, "PNG", transparency=0)) == 255).all()
    grey = Image.new("LA", (64, 64), (0, 0))
    assert (decode_image(saved(grey, "PNG")) == 255).all()


def test_cmyk_jpeg():
    data = saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG")
    red = decode_image(data).reshape(-1, 3).mean(0)
    assert red[0] > 200 > 60 > red[1]


def test_the_first_frame_of_an_animation_is_used():
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
    [b"", b"x", b"hello, world", b"GIF88a" + b"\0" * 50, b"PK\x03\x04", b"\x80\x04K\x01.", b"BM"],
)
def test_other_content_is_unsupported(content):
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WebP, AVIF, GIF or BMP"):
        decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_images_are_undecodable(kind):
    data = encode(smooth(100, 100), kind)
    with pytest.raises(UndecodableImageError, match=kind):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("side", [6_000, 60_000])
def test_too_many_pixels_are_refused_by_the_header(side):
    with pytest.raises(ImageTooLargeError, match="pixels"):
        decode_image(png_claiming(side, side))


def test_a_progressive_jpeg_has_the_limit_of_a_png():
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
def test_damaged_images_raise_only_image_errors(kind, edits, cut):
    data = bytearray(encode(TILE, kind))
    for position, value in edits:
        data[position % len(data)] = value
    try:
        tile = decode_image(bytes(data[: len(data) - cut]))
    except ImageError:
        return
    assert tile.shape == (32, 32, 3)


def test_no_image_makes_pillow_import_all_its_plugins(tmp_path):
    """Pillow would import some 40 modules at the first WebP, which takes tens of milliseconds."""
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


@pytest.mark.parametrize("scale", [2, 3, 5, 9])
def test_decoding_at_reduced_scale_keeps_the_edges(scale):
    """The last row and column of reduced pixels lie partly outside the picture."""
    side = 64 * scale + 1
    columns = np.zeros((side, side, 3), np.uint8)
    columns[:, side // 2 :] = 255
    data = saved(Image.fromarray(columns), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(decode_image(data).astype(int) - np.asarray(whole)).max() <= 8


PHOTO = np.asarray(Image.fromarray(smooth(150, 210)).convert("RGB"))
PHOTO = PHOTO ^ np.random.default_rng(1).integers(0, 16, PHOTO.shape, dtype=np.uint8)


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_that_lacks_its_end_marker_is_decoded(options, missing):
    data = encode(PHOTO, "JPEG", **options)
    assert np.array_equal(decode_image(data[:-missing]), decode_image(data))


def test_a_jpeg_that_lacks_one_more_byte_is_decoded():
    data = encode(PHOTO, "JPEG")
    difference = np.abs(decode_image(data[:-3]).astype(int) - decode_image(data))
    assert difference[:-1].max() == 0
    assert difference.max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.98])
def test_a_truncated_image_is_refused_with_the_reason(kind, share):
    data = encode(PHOTO, kind)
    with pytest.raises(UndecodableImageError, match="it is truncated"):
        decode_image(data[: int(len(data) * share)])


def test_a_progressive_jpeg_cut_between_two_scans_counts_as_truncated():
    data = encode(PHOTO, "JPEG", progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xda", b"\xff\xc4")]
    for start in starts[3:]:
        with pytest.raises(UndecodableImageError, match="it is truncated"):
            decode_image(data[:start])


METADATA = {
    "long text": chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"t" * 2_000_000),
    "much packed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"t" * 9_000_000)),
    "a wrong checksum": chunk(b"tEXt", b"Comment\0text")[:-1] + b"\0",
    "a damaged profile": chunk(b"iCCP", b"name\0\1 not zlib"),
    "short gamma": chunk(b"gAMA", b"\0"),
    "an animation that is none": chunk(b"acTL", b"\0"),
    "text that is not text": chunk(b"iTXt", b"\xff\0\0\0\xff\0\xff\0\xff"),
    "no name": chunk(b"tEXt", b"\0text"),
}


@pytest.mark.parametrize("extra", METADATA.values(), ids=METADATA)
def test_a_png_with_bad_metadata_is_decoded(extra):
    assert np.array_equal(decode_image(with_chunks(encode(TILE), extra)), TILE)
    after = encode(TILE)[:-12] + extra + encode(TILE)[-12:]
    assert np.array_equal(decode_image(after), TILE)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def tiff(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    magic = b"MM\0*" if order == ">" else b"II*\0"
    value = struct.pack(f"{order}{'I' if kind == 4 else 'H'}", orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return magic + struct.pack(f"{order}IH", 8, 1) + entry + b"\0" * 4


def raw_profile(exif: bytes) -> bytes:
    return b"\nexif\n" + str(len(exif)).rjust(8).encode() + b"\n" + exif.hex().encode() + b"\n"


NOTED = {
    "eXIf": chunk(b"eXIf", tiff(6)),
    "eXIf, little-endian": chunk(b"eXIf", tiff(6, "<")),
    "eXIf, as a long number": chunk(b"eXIf", tiff(6, kind=4)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "ImageMagick": chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(b"Exif\0\0" + tiff(6))),
    "ImageMagick, packed": chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + tiff(6)))
    ),
}


@pytest.mark.parametrize("noted", NOTED.values(), ids=NOTED)
@pytest.mark.parametrize("is_after", [False, True])
def test_orientation_is_found_anywhere_in_a_png(noted, is_after):
    png = encode(TILE)
    data = png[:-12] + noted + png[-12:] if is_after else with_chunks(png, noted)
    assert np.array_equal(decode_image(data), np.rot90(TILE, -1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("noted", ["exif", "xmp"])
def test_orientation_is_found_in_jpeg_and_webp(kind, noted):
    picture = Image.fromarray(smooth(64, 64))
    data = saved(picture, kind, **{noted: b"Exif\0\0" + tiff(6) if noted == "exif" else XMP})
    expected = np.rot90(decode_image(saved(picture, kind)), -1)
    assert np.array_equal(decode_image(data), expected)


def png_of(depth: int, colour: int, rows: bytes, transparent: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 32, 32, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"tRNS", transparent)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "clear", "other"),
    [
        (16, 0, b"\x12\x34", b"\x12\x35"),
        (8, 0, b"\0\x12", b"\0\x13"),
        (16, 2, b"\x01\x02\x03\x04\x05\x06", b"\x02\x02\x03\x04\x05\x06"),
        (8, 2, b"\0\x01\0\x02\0\x03", b"\0\x01\0\x02\0\x04"),
    ],
)
def test_a_transparent_colour_is_honoured_at_every_bit_depth(depth, colour, clear, other):
    def sample(colour: bytes) -> bytes:
        return colour if depth == 16 else colour[1::2]

    row = b"\0" + sample(clear) * 16 + sample(other) * 16
    tile = decode_image(png_of(depth, colour, row * 32, clear))
    assert (tile[:, :16] == 255).all()
    assert (tile[:, 16:] < 40).all()


@pytest.mark.parametrize(
    ("depth", "row"), [(2, b"\x55" * 4 + b"\0" * 4), (4, b"\x55" * 8 + b"\0" * 8)]
)
def test_a_transparent_grey_of_few_bits_is_honoured(depth, row):
    clear = {2: b"\0\1", 4: b"\0\5"}[depth]
    tile = decode_image(png_of(depth, 0, (b"\0" + row) * 32, clear))
    assert (tile[:, :16] == 255).all()
    assert (tile[:, 16:] == 0).all()


def test_lack_of_memory_is_not_reported_as_a_bad_image(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cifar10.images.to_pixels", fail)
    with pytest.raises(MemoryError):
        decode_image(encode(TILE))
