"""Tests of decoding images to inputs of other sizes than CIFAR-10's."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar10.errors import ImageTooLargeError
from cifar10.image_layout import TILE, ImageLayout, Target
from cifar10.images import DecodeLimits, decode_image, inspect_image
from tests.conftest import encode
from tests.kernel.hostile_images import photo, saved
from tests.kernel.test_images import smooth

PHOTO = Target(224, 224, "crop")


def by_pillow(picture: Image.Image, target: Target) -> np.ndarray:
    """Resize the shorter side with Pillow, and return the centre."""
    factor = max(target.width / picture.width, target.height / picture.height)
    size = round(picture.width * factor), round(picture.height * factor)
    left, top = (size[0] - target.width) // 2, (size[1] - target.height) // 2
    resized = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + target.width, top + target.height)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(448, 336), (336, 448), (60, 80), (1600, 1200)])
def test_a_crop_keeps_the_aspect_ratio_and_the_centre(kind, size):
    data = encode(smooth(size[1], size[0]), kind)
    found = decode_image(data, target=PHOTO).astype(int)
    assert found.shape == (224, 224, 3)
    assert np.abs(found - by_pillow(Image.open(io.BytesIO(data)), PHOTO)).mean() < 3


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_target_need_not_be_square(fit, orientation):
    """An upright picture of the target's shape is the same for both fits."""
    upright = smooth(80, 160)
    stored = upright if orientation == 1 else np.ascontiguousarray(np.rot90(upright, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(stored), "PNG", exif=exif)
    found = decode_image(data, target=Target(48, 24, fit))
    assert found.shape == (24, 48, 3)
    assert np.abs(found.astype(int) - smooth(24, 48)).max() < 12


def test_squashing_shows_what_cropping_cuts_off():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, :100, 0] = picture[:, 200:, 2] = 255
    squashed = decode_image(encode(picture), target=Target(64, 64))
    cropped = decode_image(encode(picture), target=Target(64, 64, "crop"))
    assert squashed[32, 0].tolist() == [255, 0, 0]
    assert squashed[32, 63].tolist() == [0, 0, 255]
    assert (cropped[:, 4:-4] == 0).all()


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_of_the_target_s_size_keeps_its_pixels(kind, fit):
    data = saved(photo(64, 64), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_image(data, target=Target(64, 64, fit)), expected)


def test_a_plain_tile_is_resized_for_a_larger_model():
    tile = encode(smooth(32, 32), "JPEG")
    assert decode_image(tile).shape == (32, 32, 3)
    assert decode_image(tile, target=Target(64, 64)).shape == (64, 64, 3)


def test_jpegs_are_decoded_at_the_smallest_scale_that_is_enough():
    layout = inspect_image(saved(photo(1_600, 1_200), "JPEG"))
    scales = [layout.scale(Target(side, side)) for side in (32, 75, 76, 150, 151, 300, 301)]
    assert scales == [8, 8, 4, 4, 2, 2, 1]
    assert inspect_image(saved(photo(1_600, 1_200), "PNG")).scale(TILE) == 1
    seconds = [layout.seconds(Target(side, side)) for side in (32, 76, 151, 301)]
    assert seconds == sorted(seconds)


def test_a_large_jpeg_is_the_same_picture_as_a_full_decode():
    picture = smooth(2_400, 3_200)
    data = encode(picture, "JPEG", quality=90)
    found = decode_image(data, target=PHOTO).astype(int)
    assert np.abs(found - by_pillow(Image.fromarray(picture), PHOTO)).mean() < 1


@pytest.mark.parametrize(("size", "scale"), [((60_000, 800), 2), ((60_000, 100), 1)])
def test_a_very_long_jpeg_is_never_whole_in_memory(size, scale):
    """At full scale, 60,000 × 800 pixels would take 192 MB."""
    layout = ImageLayout("JPEG", *size, b"", streamed=True)
    assert layout.scale(PHOTO) == scale


def test_a_refusal_names_the_size_that_the_model_sees():
    with pytest.raises(ImageTooLargeError, match="the model sees 224 × 224"):
        decode_image(encode(smooth(40, 40)), DecodeLimits(max_pixels=1_024), PHOTO)
