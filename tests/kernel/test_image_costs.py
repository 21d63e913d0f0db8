"""Tests that the cost of decoding an image is known, and limited, beforehand."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10 import image_layout
from cifar10.errors import ImageError, ImageTooLargeError, UndecodableImageError
from cifar10.formats import jpeg_markers
from cifar10.formats.jpeg_markers import MAX_SEGMENTS, read_markers
from cifar10.formats.png_chunks import MAX_CHUNKS, png_layout
from cifar10.formats.webp_chunks import webp_layout
from cifar10.images import DecodeLimits, decode_image, inspect_image
from tests.conftest import encode
from tests.kernel.hostile_images import (
    EOI,
    chunk,
    multi_picture,
    photo,
    saved,
    scan_bomb,
    segment,
    several_scans,
    sparse_webp,
    with_chunks,
)

TILE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
JPEG = encode(TILE, "JPEG")
PROGRESSIVE = encode(TILE, "JPEG", progressive=True)
PNG = encode(TILE)
WEBP = encode(TILE, "WEBP", lossless=True)


def test_the_number_of_scans_is_limited():
    assert len(read_markers(JPEG).scans) == 1
    assert len(read_markers(PROGRESSIVE).scans) == 10
    few = scan_bomb(64, 20)
    assert len(read_markers(few).scans) == 21
    assert decode_image(few).shape == (32, 32, 3)
    with pytest.raises(ImageTooLargeError, match="marker segments"):
        decode_image(scan_bomb(64, 9_000))
    with pytest.raises(ImageTooLargeError, match=r"901 scans.*at most 100 scans"):
        decode_image(scan_bomb(64, 900))


def test_pixels_times_scans_are_limited():
    """Each scan visits every block, so a larger picture may have fewer scans."""
    bomb = scan_bomb(2_000, 99)
    with pytest.raises(ImageTooLargeError, match=r"100 scans of 4,000,000 pixels"):
        decode_image(bomb)


def test_scans_of_an_embedded_thumbnail_do_not_count():
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 2_000
    photo_with_thumbnail = saved(photo(64, 64), "JPEG", comment=b"\xff\xda\0\4" * 5_000, exif=exif)
    assert len(read_markers(photo_with_thumbnail).scans) == 1
    assert decode_image(photo_with_thumbnail).shape == (32, 32, 3)


@pytest.mark.parametrize("make", [several_scans, lambda image: saved(image, "JPEG", progressive=1)])
def test_images_held_whole_have_the_lower_limit(make):
    limits = DecodeLimits(max_pixels=100 * 100, max_pixels_whole=50 * 50)
    picture = photo(80, 80)
    assert decode_image(saved(picture, "JPEG"), limits).shape == (32, 32, 3)
    with pytest.raises(ImageTooLargeError, match="at most 2,500"):
        decode_image(make(picture), limits)


def test_a_jpeg_in_several_scans_decodes_to_the_same_picture():
    picture = photo(64, 64)
    found = decode_image(several_scans(picture)).astype(int)
    assert np.abs(found - decode_image(saved(picture, "PNG"))).mean() < 4


def test_the_first_picture_of_an_mpo_file_is_decoded_as_a_jpeg():
    picture = photo(1_200, 900)
    single = decode_image(saved(picture, "JPEG", quality=75))
    double = multi_picture(picture, quality=75)
    layout = inspect_image(double)
    assert layout.streamed
    assert np.array_equal(decode_image(double), single)


def test_an_mpo_file_is_never_decoded_whole():
    double = multi_picture(photo(2_000, 1_500))
    decode_image(double)  # what is loaded at the first use
    tracemalloc.start()
    decode_image(double)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(double)  # Pillow's pixels are not traced; the file's copies are
    limits = DecodeLimits(max_pixels=4_000_000, max_pixels_whole=100_000)
    assert decode_image(double, limits).shape == (32, 32, 3)


def test_many_pixels_in_few_bytes_are_refused():
    small = sparse_webp(900)
    assert len(small) < 100
    assert (decode_image(small) == 0).all()
    with pytest.raises(ImageTooLargeError, match=r"1,210,000 pixels in \d\d bytes"):
        decode_image(sparse_webp(1_100))
    flat = saved(Image.new("RGB", (2_400, 2_400)), "PNG")
    assert (decode_image(flat) == 0).all()


def test_a_large_canvas_is_refused_before_it_is_allocated(monkeypatch):
    def fail(*_: object) -> None:
        pytest.fail("the decoder was asked")

    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", fail)
    for size in ((16_383, 16_383), (5_000, 5_000)):
        with pytest.raises(ImageTooLargeError):
            decode_image(saved(Image.new("1", (1, 1)), "WEBP", lossless=True)[:20] + lossless(size))
    canvas = b"\0" * 4 + (9_999).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    with pytest.raises(ImageTooLargeError, match="10000 × 10000"):
        decode_image(b"RIFF" + struct.pack("<I", len(body)) + body)


def lossless(size: tuple[int, int]) -> bytes:
    bits = (size[0] - 1) | (size[1] - 1) << 14
    return b"\x2f" + struct.pack("<I", bits) + b"\0" * 20


def test_many_segments_are_refused():
    crowded = JPEG[:2] + segment(0xFE) * (MAX_SEGMENTS + 1) + JPEG[2:]
    with pytest.raises(ImageTooLargeError, match="more than 2,048 marker segments"):
        decode_image(crowded)
    assert decode_image(JPEG[:2] + segment(0xFE) * 1_000 + JPEG[2:]).shape == (32, 32, 3)


def test_many_chunks_are_refused_or_joined():
    empty = chunk(b"IDAT", b"")
    assert np.array_equal(decode_image(with_chunks(PNG, empty * 1_000)), TILE)
    assert len(inspect_image(with_chunks(PNG, empty * 1_000)).content) < len(PNG) + 100
    with pytest.raises(UndecodableImageError):
        decode_image(with_chunks(PNG, empty * (MAX_CHUNKS + 1)))


def test_decoders_receive_no_metadata():
    """Neither Pillow's EXIF parser nor its text decompressor nor its list of segments gets any."""
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = saved(photo(64, 64), "JPEG", exif=exif, icc_profile=b"x" * 200_000, comment=b"c" * 999)
    layout = inspect_image(jpeg)
    assert layout.orientation == 6
    with Image.open(io.BytesIO(layout.content)) as image:
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}
    png = with_chunks(PNG, chunk(b"tEXt", b"Comment\0" + b"t" * 100_000), chunk(b"gAMA", b"\0" * 4))
    assert len(inspect_image(png).content) == len(PNG)


def test_estimated_seconds_grow_with_pixels_scans_and_bytes():
    def seconds(image: bytes) -> float:
        return inspect_image(image).seconds(image_layout.TILE)

    large, small = photo(800, 600), photo(400, 300)
    assert seconds(saved(large, "JPEG")) > seconds(saved(small, "JPEG"))
    assert seconds(saved(large, "JPEG", progressive=True)) > 2 * seconds(saved(large, "JPEG"))
    assert seconds(scan_bomb(400, 90)) > 5 * seconds(scan_bomb(400, 9))
    assert seconds(saved(large, "PNG")) == pytest.approx(4 * seconds(saved(small, "PNG")), rel=0.01)
    assert seconds(saved(large, "JPEG")[:-2]) > seconds(saved(large, "JPEG"))


# The readers never raise and take linear time.

JPEG_PARTS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\xff", b"\xff\xff", b"\xff\0", b"\xff\xd0", b"\xff\x01", b"\xff\xd8", EOI]),
    st.builds(
        lambda marker, length, content: bytes((0xFF, marker)) + length.to_bytes(2, "big") + content,
        st.integers(0, 255),
        st.integers(0, 300),
        st.binary(max_size=60),
    ),
    st.sampled_from([JPEG[2:], PROGRESSIVE[2:], segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")]),
)


class CountingPattern:
    """Stands in for the marker pattern and counts the bytes it searches."""

    def __init__(self) -> None:
        self.pattern = jpeg_markers._MARKER
        self.bytes = self.calls = 0

    def search(self, data: bytes, start: int, end: int) -> object:
        found = self.pattern.search(data, start, end)
        self.bytes += (found.end() if found else min(end, len(data))) - start
        self.calls += 1
        return found


def count_steps(data: bytes) -> CountingPattern:
    with pytest.MonkeyPatch.context() as patch:
        counting = CountingPattern()
        patch.setattr(jpeg_markers, "_MARKER", counting)
        structure = read_markers(data)
    assert structure.segments <= MAX_SEGMENTS + 1
    assert counting.calls <= structure.segments + 1 + len(data) // (jpeg_markers._WINDOW - 1)
    assert counting.bytes <= len(data) + 2 * counting.calls
    return counting


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(JPEG_PARTS, max_size=30).map(b"".join), st.binary(max_size=3))
def test_reading_markers_never_raises_and_takes_linear_time(content, cut):
    count_steps(b"\xff\xd8\xff" + content + cut)
    count_steps(b"\xff\xd8" + content)


@pytest.mark.parametrize(
    "unit",
    [b"\0", b"\xff", b"\xff\0", b"\xff\xd0", b"\xff\xff\0", b"\xff\xfe\0\0", b"\xff\xda\0\2"],
    ids=bytes.hex,
)
def test_reading_markers_of_long_files_takes_linear_time(unit, monkeypatch):
    monkeypatch.setattr(jpeg_markers, "_WINDOW", 1_000)
    count_steps(b"\xff\xd8" + unit * (300_000 // len(unit)))


def test_a_marker_is_found_across_windows(monkeypatch):
    monkeypatch.setattr(jpeg_markers, "_WINDOW", 16)
    for gap in range(40):
        data = b"\xff\xd8" + b"a" * gap + EOI
        assert read_markers(data).ends


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tRNS"]))
    content = draw(
        st.binary(max_size=40)
        | st.sampled_from([b"Raw profile type exif\0", b"XML:com.adobe.xmp\0\0\0\0\0"]).flatmap(
            lambda start: st.binary(max_size=40).map(lambda rest: start + rest)
        )
    )
    whole = chunk(kind, content)
    return whole if draw(st.booleans()) else struct.pack(">I", draw(st.integers(0, 99))) + whole[4:]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(chunks(), max_size=12).map(b"".join), st.integers(0, 20))
def test_chunk_readers_never_raise(content, cut):
    for data in (with_chunks(PNG, content), PNG[:33] + content, PNG[:8] + content):
        layout = png_layout(data[: len(data) - cut])
        assert layout is None or len(layout.content) <= len(data) + 24
    for data in (WEBP[:12] + content, WEBP[:30] + content):
        webp_layout(data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(chunks(), max_size=8).map(b"".join), st.lists(JPEG_PARTS, max_size=8).map(b"".join))
def test_refusals_of_hostile_images_give_a_reason(png, jpeg):
    for data in (with_chunks(PNG, png), b"\xff\xd8\xff" + jpeg, JPEG[:20] + jpeg + JPEG[20:]):
        told = "decoded, and so nothing is told"
        try:
            assert decode_image(data).shape == (32, 32, 3)
        except ImageError as error:
            told = str(error)
        assert " at 0x" not in told
        assert len(told) > 30
