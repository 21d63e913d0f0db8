"""Tests of what the compact recipe adds: layers, learning rate, augmentation."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.errors import RecipeError
from tests.training.tiny import TINY, TINY_SCHEDULED, tiny_dataset
from training.augmentation import alternating_flips, augment
from training.networks.models import build_model, compile_model
from training.networks.normalization import FusedBatchNormalization
from training.recipes.own import COMPACT
from training.recipes.schema import Augmentation, Phase, recipe_fields
from training.schedule import learning_rate

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NOTHING = Augmentation(shift=0, flip=False, jpeg=0.0, resize=0.0, light=0.0)


def images(count: int = 64) -> np.ndarray:
    found = tiny_dataset().train.images[:count]
    assert len(found) == count
    return found


def test_the_finished_model_needs_none_of_our_code(uninterrupted_scheduled: Path) -> None:
    """A file with only Keras' own layers can be loaded by Keras anywhere."""
    config = keras.saving.load_model(uninterrupted_scheduled / "model.keras").get_config()
    assert {layer["module"] for layer in config["layers"]} <= {"keras.layers", None}
    assert "ShiftNormalization" not in str(config)


def test_compact_has_at_most_100_000_parameters() -> None:
    assert COMPACT.expected_parameters.total <= 100_000


def test_the_fused_layer_computes_what_keras_computes() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(2.0, 3.0, (16, 5, 5, 4)).astype(np.float32)
    ours, theirs = (
        kind(momentum=0.5) for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    for training in (True, False, True):
        found, expected = (layer(inputs, training=training) for layer in (ours, theirs))
        # The running variances differ by the factor below, and so do answers in inference.
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    unbiased = inputs.size / 4 / (inputs.size / 4 - 1)
    batch_variance = inputs.var(axis=(0, 1, 2))
    np.testing.assert_allclose(
        ours.moving_variance, 0.25 + 0.75 * unbiased * batch_variance, rtol=1e-4
    )


@pytest.mark.parametrize("phase", COMPACT.phases, ids=lambda phase: phase.name)
def test_the_learning_rate_rises_and_falls_to_nothing(phase: Phase) -> None:
    assert phase.schedule is not None
    rates = [learning_rate(phase, step, 1_000) for step in range(1_000)]
    top = int(np.argmax(rates))
    assert top == pytest.approx(1_000 * phase.schedule.rise, abs=1)
    assert rates[top] == pytest.approx(phase.learning_rate)
    assert all(np.diff(rates[: top + 1]) > 0)
    assert all(np.diff(rates[top + 1 :]) < 0)
    # One of the steps in which it rises, however many they are.
    assert 0 < rates[0] <= rates[top] / (1_000 * phase.schedule.rise)
    assert 0 < rates[-1] < 1e-3 * phase.learning_rate


def test_without_a_schedule_the_learning_rate_stays() -> None:
    constant = Phase(name="all", epochs=2, learning_rate=0.3, patience=1)
    assert {learning_rate(constant, step, 10) for step in range(10)} == {0.3}


def test_the_optimizer_is_the_schedule_s() -> None:
    model = build_model(TINY_SCHEDULED)
    compile_model(model, TINY_SCHEDULED.phases[0], TINY_SCHEDULED.label_smoothing)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert (model.optimizer.momentum, model.optimizer.nesterov) == (0.9, True)
    assert model.optimizer.weight_decay == 1e-3
    assert model.loss.label_smoothing == 0.1


def test_without_augmentation_nothing_changes() -> None:
    before = images()
    after = augment(before, NOTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(after, before)
    assert not np.shares_memory(after, before)


@pytest.mark.parametrize("kind", ["shift", "flip", "jpeg", "resize", "light"])
def test_each_augmentation_changes_images_and_is_seeded(kind: str) -> None:
    before = images()
    kept = before.copy()
    how = dataclasses.replace(NOTHING, **{kind: {"shift": 3, "flip": True}.get(kind, 1.0)})
    after = augment(before, how, np.random.default_rng(1))
    np.testing.assert_array_equal(before, kept)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    changed = (after != before).any(axis=(1, 2, 3))
    assert changed.mean() > 0.3
    np.testing.assert_array_equal(after, augment(before, how, np.random.default_rng(1)))
    assert (after != augment(before, how, np.random.default_rng(2))).any()
    # Still the same pictures, in the same order: nearest to themselves of all.
    if kind in ("jpeg", "resize", "light"):
        flat = before.reshape(len(before), -1).astype(np.float32)
        for index, picture in enumerate(after.reshape(len(before), -1).astype(np.float32)):
            assert np.argmin(np.square(flat - picture).sum(axis=1)) == index


def test_a_square_of_each_image_is_made_grey_and_nothing_else() -> None:
    before = images(64)
    how = dataclasses.replace(NOTHING, cutout=8)
    after = augment(before, how, np.random.default_rng(0))
    changed = (after != before).any(axis=3)
    for image, difference in zip(after, changed, strict=True):
        rows, columns = np.nonzero(difference)
        assert 0 < np.ptp(rows) + 1 <= 8
        assert 0 < np.ptp(columns) + 1 <= 8
        assert (image[difference] == 120).all()
    sizes = changed.sum(axis=(1, 2))
    assert sizes.max() == 64  # whole ones, and some that reach over the edge
    assert sizes.min() < 64


def test_a_crop_is_a_square_of_the_picture() -> None:
    before = images(200)
    how = dataclasses.replace(NOTHING, crop=30)
    after = augment(before, how, np.random.default_rng(0))
    assert after.shape == (200, 30, 30, 3)
    seen = set()
    for one, other in zip(before, after, strict=True):
        places = [(down, right) for down in range(3) for right in range(3)]
        seen |= {at for at in places if (one[at[0] :, at[1] :][:30, :30] == other).all()}
    assert len(seen) == 9


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    before = images(64)
    how = dataclasses.replace(NOTHING, flip=True, alternating=True)
    first, second, third = (
        augment(before, how, np.random.default_rng(epoch), alternating_flips(64, 7, epoch))
        for epoch in (1, 2, 3)
    )
    np.testing.assert_array_equal(first[:, :, ::-1], second)
    np.testing.assert_array_equal(first, third)
    flipped = (first != before).any(axis=(1, 2, 3)).mean()
    assert 0.3 < flipped < 0.7
    assert (alternating_flips(64, 7, 1) != alternating_flips(64, 8, 1)).any()


def test_a_shift_moves_the_picture() -> None:
    before = images(200)
    how = dataclasses.replace(NOTHING, shift=2)
    after = augment(before, how, np.random.default_rng(0))
    seen = set()
    for one, other in zip(before, after, strict=True):
        for down in range(-2, 3):
            for right in range(-2, 3):
                moved = np.roll(one, (-down, -right), axis=(0, 1))[2:-2, 2:-2]
                if (moved == other[2:-2, 2:-2]).all():
                    seen.add((down, right))
    assert len(seen) == 25


def test_unused_options_are_not_in_a_recipe_s_fields() -> None:
    fields = recipe_fields(TINY)
    assert not {"augmentation", "label_smoothing"} & fields.keys()
    assert all("schedule" not in phase for phase in fields["phases"])
    fields = recipe_fields(TINY_SCHEDULED)
    assert fields["label_smoothing"] == 0.1
    assert fields["augmentation"]["shift"] == 2
    assert fields["phases"][0]["schedule"]["rise"] == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"augmentation": dataclasses.replace(NOTHING, jpeg=1.5)},
        {"augmentation": dataclasses.replace(NOTHING, shift=-1)},
        {"augmentation": dataclasses.replace(NOTHING, crop=-1)},
    ],
)
def test_shares_outside_their_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="tiny_scheduled"):
        dataclasses.replace(TINY_SCHEDULED, **change)
