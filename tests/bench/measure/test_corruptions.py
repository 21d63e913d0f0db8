import hashlib

import numpy as np
import pytest

from bench.measure.corruptions import CORRUPTIONS, Corruption, corrupt
from bench.rows.kinds.accuracy import SEVERITIES
from cifar10.dataset import Dataset

BY_NAME = {one.name: one for one in CORRUPTIONS}
every = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda one: one.name)


@every
def test_corruptions_are_reproducible_and_grow_with_severity(
    corruption: Corruption, synthetic: Dataset
) -> None:
    images = synthetic.test.images[:40]
    before = images.copy()
    distances = []
    for severity in SEVERITIES:
        once = corrupt(corruption, images, severity)
        assert once.dtype == np.uint8
        assert once.shape == images.shape
        assert (once == corrupt(corruption, images, severity)).all()
        distances.append(np.abs(once.astype(int) - images).mean())
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert (images == before).all()


@every
def test_corruption_of_an_image_does_not_depend_on_the_others(
    corruption: Corruption, synthetic: Dataset
) -> None:
    images = synthetic.test.images
    assert (corrupt(corruption, images[:30], 3)[:10] == corrupt(corruption, images[:10], 3)).all()


def test_another_seed_gives_other_noise(synthetic: Dataset) -> None:
    noise, images = BY_NAME["gaussian noise"], synthetic.test.images[:5]
    assert (corrupt(noise, images, 1, seed=0) != corrupt(noise, images, 1, seed=1)).any()


def test_noise_has_the_stated_strength() -> None:
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    noisy = corrupt(BY_NAME["gaussian noise"], grey, 5).astype(float)
    assert noisy.std() / 255 == pytest.approx(0.10, rel=0.02)


def test_the_noise_does_not_change_between_versions() -> None:
    """Rows of different days are compared, so a seed must always give the same noise."""
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    found = corrupt(BY_NAME["gaussian noise"], grey, 1)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "7c80960cad15def4"


def test_brightness_keeps_the_hue_and_lifts_black() -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, 0, 0] = (100, 50, 0)
    found = corrupt(BY_NAME["brightness"], images, 5)  # + 0.3 · 255 = 76.5
    assert found[0, 0, 0].tolist() == [176, 88, 0]
    assert found[0, 1, 1].tolist() == [76, 76, 76]


def test_contrast_shrinks_towards_the_images_own_mean() -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, :16] = 200
    found = corrupt(BY_NAME["contrast"], images, 2)  # half of it is kept
    assert sorted(np.unique(found)) == [50, 150]


def test_blur_spreads_a_point_as_a_bell_and_keeps_even_areas() -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, 16, 16] = 255
    found = corrupt(BY_NAME["blur"], images, 5)[0, :, :, 0].astype(int)
    assert found[16, 16] == round(255 / (2 * np.pi))  # a bell of width 1, at its middle
    assert found[16, 15] == found[17, 16] == round(255 / (2 * np.pi) * np.exp(-0.5))
    even = np.full((1, 32, 32, 3), 77, np.uint8)
    assert (corrupt(BY_NAME["blur"], even, 5) == 77).all()


def test_an_unknown_severity_is_an_error() -> None:
    with pytest.raises(ValueError, match="1–5, got 6"):
        corrupt(CORRUPTIONS[0], np.zeros((1, 32, 32, 3), np.uint8), 6)
