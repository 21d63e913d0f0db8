"""Tests of backbones in recipes: trained and frozen layers, splitting and joining."""

import csv
import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.card import Parameters, read_training_record
from cifar10.errors import RecipeError
from cifar10.store import ModelStore
from tests.training.tiny import tiny_dataset
from training.history import EpochRow
from training.networks.backbone_models import (
    BuiltBackbone,
    StoredStatistics,
    build_backbone,
    cut_before_trained,
    set_trained_layers,
    with_stored_statistics,
)
from training.networks.backbones import Backbone, Head, WeightsChoice
from training.networks.models import count_parameters
from training.observer import Observer
from training.recipes.catalogue import find_recipe
from training.recipes.schema import Augmentation, with_epochs
from training.run import train
from training.stages import Kept, make_stages
from training.weights import calibrate_random

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATASET = tiny_dataset()
IMAGES = DATASET.test.images[:4]
FINETUNED = find_recipe("mobilenetv2_finetuned")
PLAIN = Backbone(
    backbone="mobilenetv2",
    resolution=32,
    preprocessing="native",
    head=Head(pooling="average"),
    trained_layers=(0,),
)


@pytest.fixture(scope="module")
def built() -> BuiltBackbone:
    keras.utils.set_random_seed(2)
    architecture = dataclasses.replace(PLAIN, trained_layers=(0, 10))
    model = build_backbone(architecture, "model")
    # Without it, the answers would be the same for every picture, and comparing them idle.
    calibrate_random(model, architecture, DATASET.train.images)
    return model


def test_phases_train_what_the_study_trained(built: BuiltBackbone) -> None:
    set_trained_layers(built, 0)
    assert count_parameters(built.model) == Parameters(2_270_794, 12_810, 2_257_984)
    set_trained_layers(built, 10)
    assert count_parameters(built.model) == Parameters(2_270_794, 745_290, 1_525_504)


@pytest.mark.parametrize(
    ("trained", "layer"),
    [(0, "pooled"), (10, "block_16_expand"), (20, "block_14_add"), (100, "block_5_add")],
)
def test_the_two_parts_compute_the_same_as_the_whole(
    built: BuiltBackbone, trained: int, layer: str
) -> None:
    set_trained_layers(built, trained)
    cut = cut_before_trained(built, trained)
    assert cut is not None
    assert cut.layer == layer
    assert not cut.frozen.trainable_weights
    assert count_parameters(cut.trained).trainable == count_parameters(built.model).trainable
    found = np.asarray(cut.trained(cut.frozen(IMAGES, training=False), training=False))
    expected = np.asarray(built.model(IMAGES, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fully_trained_backbone_is_not_split(built: BuiltBackbone) -> None:
    assert cut_before_trained(built, len(built.layers)) is None


def test_stored_statistics_are_used_in_training_too(built: BuiltBackbone) -> None:
    set_trained_layers(built, 10)
    cut = cut_before_trained(built, 10)
    assert cut is not None
    copied = with_stored_statistics(cut.trained)
    kinds = [type(layer) for layer in copied.layers]
    assert kinds.count(StoredStatistics) == 4
    features = np.asarray(cut.frozen(IMAGES, training=False))
    expected = np.asarray(cut.trained(features, training=False))
    np.testing.assert_allclose(np.asarray(copied(features, training=True)), expected, atol=1e-6)
    assert count_parameters(copied) == count_parameters(cut.trained)
    # What would happen without: the statistics of four pictures, and other answers.
    plain = np.asarray(cut.trained(features, training=True))
    assert np.abs(plain - expected).max() > 1e-4


def test_batch_statistics_are_used_where_a_recipe_says_so() -> None:
    recipe = find_recipe("mobilenetv2_unfrozen")
    stages = make_stages(recipe, DATASET, 0, None, Observer())
    model = stages.begin(recipe.phases[0], None)
    assert not any(isinstance(layer, StoredStatistics) for layer in model.layers)
    different = np.asarray(model(IMAGES, training=True)) - np.asarray(model(IMAGES))
    assert np.abs(different).max() > 1e-4


@pytest.mark.parametrize(
    ("backbone", "preprocessing", "expected"),
    [
        ("mobilenetv2", "unit", (0.0, 0.2, 1.0)),
        ("mobilenetv2", "native", (-1.0, -0.6, 1.0)),
        ("vgg16", "unit", (0.0, 0.2, 1.0)),
        ("vgg16", "native", (255 - 103.939, 51 - 116.779, 0 - 123.68)),  # blue first
        ("efficientnetb0", "native", (0.0, 51.0, 255.0)),
    ],
)
def test_pixels_reach_the_backbone_as_it_expects(
    backbone: str, preprocessing: str, expected: tuple[float, ...]
) -> None:
    architecture = dataclasses.replace(
        PLAIN,
        backbone=backbone,
        preprocessing=preprocessing,  # type: ignore[arg-type]
    )
    model = build_backbone(architecture, "model")
    first = model.layers[0]
    before = keras.Model(model.base.input, first.input)
    pixels = np.broadcast_to(np.array([0, 51, 255], np.uint8), (1, 32, 32, 3))
    found = np.asarray(before(pixels))
    np.testing.assert_allclose(found[0, 5, 5], expected, atol=1e-4)


def test_the_image_is_resized_inside() -> None:
    model = build_backbone(dataclasses.replace(PLAIN, resolution=96), "model")
    assert model.layers[0].input.shape == (None, 96, 96, 3)
    assert model.model.input.shape == (None, 32, 32, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet51"}, "no backbone 'resnet51'; there are: resnet50"),
        ({"resolution": 16}, "too small"),
        ({"head": Head(pooling="average", dense_units=(4,))}, "1 dense layers and 0 dropouts"),
        ({"trained_layers": ()}, "one count for each phase"),
        ({"trained_layers": (10, 0)}, "none smaller"),
    ],
)
def test_an_invalid_backbone_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(PLAIN, **change)


def test_a_recipe_says_for_each_phase_what_is_trained() -> None:
    with pytest.raises(RecipeError, match="2 phases, but says for 1"):
        dataclasses.replace(FINETUNED, architecture=PLAIN)


class Crash(BaseException):
    """Simulated end of the process, which the code under test must not catch."""


class StoppedAfter(Observer):
    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        if row.epoch == self._epoch:
            raise Crash


def test_an_interrupted_fine_tuning_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """Stops in either phase, with random weights, whose record has no accuracy."""
    recipe = with_epochs(FINETUNED, 2)
    random = WeightsChoice(random=True)
    whole, stopped = ModelStore(tmp_path / "whole"), ModelStore(tmp_path / "stopped")
    record = train(recipe, DATASET, whole, weights=random).record
    for epoch in (1, 3):
        with pytest.raises(Crash):
            train(recipe, DATASET, stopped, weights=random, observer=StoppedAfter(epoch))
    assert train(recipe, DATASET, stopped, weights=random).record.training.resumed == 2
    models = [
        keras.saving.load_model(store.folder(recipe.name) / "model.keras", compile=False)
        for store in (whole, stopped)
    ]
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert count_parameters(models[0]) == record.parameters == recipe.expected_parameters
    assert not any(isinstance(layer, StoredStatistics) for layer in models[0].layers)
    assert record.weights is not None
    assert record.weights.random
    assert record.accuracy is None
    assert not (whole.folder(recipe.name) / "history.csv").exists()
    text = (whole.folder(recipe.name) / "training.json").read_bytes()
    assert read_training_record(text) == record
    with pytest.raises(RecipeError, match="random_weights is True there, False asked for"):
        train(recipe, DATASET, whole)


def test_a_phase_with_an_augmentation_of_its_own_trains_on_pixels() -> None:
    shifted = Augmentation(shift=1, flip=True, jpeg=0.0, resize=0.0, light=0.0)
    head, last_ten = FINETUNED.phases
    phases = (head, dataclasses.replace(last_ten, augmentation=shifted))
    recipe = dataclasses.replace(FINETUNED, phases=phases)
    stages = make_stages(recipe, DATASET, 0, None, Observer())
    assert not stages.inputs(phases[0]).are_pixels
    assert stages.inputs(phases[1]).are_pixels
    model = stages.begin(phases[1], Kept(stages.begin(phases[0], None), "head"))
    assert count_parameters(model) == FINETUNED.expected_parameters
    weights = [weight + 0.01 for weight in model.get_weights()]
    model.set_weights(weights)
    whole = stages.whole(Kept(model, "last_ten"))
    for ours, theirs in zip(whole.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_on_features_equals_training_the_whole_model(tmp_path: Path) -> None:
    """The recorded training accuracy, from features, equals the whole model's on pixels."""
    pretrained = build_backbone(PLAIN, "model")
    calibrate_random(pretrained, PLAIN, DATASET.train.images)
    pretrained.base.save_weights(tmp_path / "mobilenetv2.weights.h5")
    recipe = with_epochs(find_recipe("mobilenetv2_frozen"), 1)
    store = ModelStore(tmp_path / "models")
    record = train(recipe, DATASET, store, weights=WeightsChoice(tmp_path)).record
    model = keras.saving.load_model(store.folder(recipe.name) / "model.keras")
    assert record.accuracy is not None
    for split, accuracy in (
        (DATASET.train, record.accuracy.train),
        (DATASET.validation, record.accuracy.validation),
    ):
        predicted = model.predict(split.images, verbose=0).argmax(axis=1)
        found = float(np.mean(predicted == split.labels))
        assert found == pytest.approx(accuracy.accuracy, abs=2 / len(split.labels))
    history = (store.folder(recipe.name) / "history.csv").read_text()
    assert [row["phase"] for row in csv.DictReader(history.splitlines())] == ["head"]
