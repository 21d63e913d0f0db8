"""Tests that epochs prepared ahead in other processes equal those prepared on demand."""

import numpy as np
import pytest

from tests.training.tiny import TINY_SCHEDULED, tiny_dataset
from training.drawn_epochs import Asked, Drawing, ahead_of_time

IMAGES = tiny_dataset().train.images


@pytest.mark.parametrize("changed", [True, False])
def test_the_same_epochs_ahead_of_time(changed: bool) -> None:
    how = TINY_SCHEDULED.augmentation if changed else None
    asked = [Asked(5, epoch, how) for epoch in range(1, 6)]
    now = Drawing(IMAGES)
    with ahead_of_time(IMAGES) as ahead:
        # The third is left out, as a phase that ends early does; then it is asked for after all.
        for index in (0, 1, 3, 2, 4):
            found = ahead.take(asked[index], tuple(asked[index + 1 :]))
            expected = now.take(asked[index])
            np.testing.assert_array_equal(found.order, expected.order)
            assert found.keras_seed == expected.keras_seed
            assert (found.images is None) == (expected.images is None) == (not changed)
            if found.images is not None and expected.images is not None:
                np.testing.assert_array_equal(found.images, expected.images)
