"""Tests that plain JPEG tiles, decoded by libjpeg-turbo directly, give the same result as
Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifar10 import images as images_module
from cifar10.errors import ImageError
from cifar10.images import DecodeLimits, decode_image
from tests.conftest import encode
from tests.service.cases import JPEG, PIXELS, damaged

PLAIN = {
    "4:4:4": encode(PIXELS, "JPEG", subsampling=0),
    "4:2:2": encode(PIXELS, "JPEG", subsampling=1),
    "4:2:0": encode(PIXELS, "JPEG", subsampling=2),
    "quality 10": encode(PIXELS, "JPEG", quality=10),
    "quality 100": encode(PIXELS, "JPEG", quality=100),
    "grey": encode(PIXELS[..., 0], "JPEG"),
    "optimised": encode(PIXELS, "JPEG", optimize=True),
    "restarts": encode(PIXELS, "JPEG", restart_marker_blocks=1),
}


def _oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(PIXELS, "JPEG", exif=exif)


def _cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


NOT_PLAIN = {
    "progressive": encode(PIXELS, "JPEG", progressive=True),
    "CMYK": _cmyk(),
    "RGB": encode(PIXELS, "JPEG", keep_rgb=True),
    "comment": encode(PIXELS, "JPEG", comment=b"a comment"),
    "profile": encode(PIXELS, "JPEG", icc_profile=b"not a profile"),
    "32 × 33": encode(np.vstack([PIXELS, PIXELS[:1]]), "JPEG"),
    **{f"orientation {value}": _oriented(value) for value in range(1, 9)},
}


@pytest.fixture
def direct(monkeypatch):
    """Count the images decoded without Pillow."""
    calls = []
    decode = images_module.simplejpeg.decode_jpeg

    def counted(*arguments):
        calls.append(arguments)
        return decode(*arguments)

    monkeypatch.setattr(images_module.simplejpeg, "decode_jpeg", counted)
    return calls


def by_pillow(data: bytes) -> np.ndarray | type[ImageError]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images_module, "decode_plain_tile", lambda *_: None)
        return either(data)


def either(data: bytes) -> np.ndarray | type[ImageError]:
    """Return the tile, or the class of the error."""
    try:
        return decode_image(data)
    except ImageError as error:
        return type(error)


def assert_the_same(data: bytes) -> None:
    found, expected = either(data), by_pillow(data)
    if isinstance(expected, type) or isinstance(found, type):
        assert found is expected
    else:
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_plain_tiles_are_decoded_directly_to_the_same_pixels(data, direct):
    assert_the_same(data)
    assert len(direct) == 1


@pytest.mark.parametrize("data", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_jpegs_with_metadata_are_decoded_by_pillow(data, direct):
    assert_the_same(data)
    assert direct == []


def test_the_pixel_limit_applies_to_tiles_too():
    with pytest.raises(ImageError, match="32 × 32"):
        decode_image(JPEG, DecodeLimits(max_pixels=1023))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.sampled_from(list(PLAIN.values())).flatmap(damaged))
def test_a_damaged_tile_gets_the_same_pixels_or_the_same_refusal(data):
    assert_the_same(data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(list(PLAIN.values())), st.data())
def test_a_tile_cut_short_gets_the_same_pixels_or_the_same_refusal(whole, data):
    assert_the_same(whole[: data.draw(st.integers(0, len(whole)))])
