"""Tests of recipes on a user's own images: their adaptation, a training, its export and variant."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.dataset import Dataset, dataset_of, load_dataset
from cifar10.errors import RecipeError
from cifar10.predictor import Predictor
from cifar10.store import ModelStore
from export.run import export_model
from export.variants import VariantLimits, make_variant
from tests.training.tiny import TINY_SCHEDULED
from training.networks.backbones import Backbone
from training.networks.models import build_model
from training.networks.task import Task
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.own_images import (
    accepted_sizes,
    check_size,
    for_dataset,
    model_name,
    own_size,
)
from training.recipes.schema import OneCycle, Recipe, recipe_fields
from training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures, each bright in another colour."""
    root = tmp_path_factory.mktemp("data") / "Farben & Töne"
    random = np.random.default_rng(0)
    for colour in range(3):
        for number in range(20):
            pixels = random.integers(0, 120, (50, 60, 3), np.uint8)
            pixels[..., colour] += 100
            path = root / ("rot", "grün", "none")[colour] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def own(folder: Path) -> Dataset:
    return load_dataset(str(folder), shape=(64, 64, 3))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_takes_its_default_size(recipe: Recipe, own: Dataset) -> None:
    size = own_size(recipe, None)
    assert size in accepted_sizes(recipe)
    images = np.zeros((2, size, size, 3), np.uint8)
    part = dataclasses.replace(own.train, images=images)
    adapted = for_dataset(recipe, dataclasses.replace(own, train=part))
    assert adapted.task == Task(size, 3)
    assert adapted.distillation is None
    if isinstance(adapted.architecture, Backbone):
        assert adapted.architecture.resolution == size


@pytest.mark.parametrize(("name", "size"), [("compact", 64), ("compact", 32), ("simple_cnn", 64)])
def test_a_network_of_another_size(name: str, size: int, own: Dataset) -> None:
    adapted = dataclasses.replace(for_dataset(find_recipe(name), own), task=Task(size, 3))
    model = build_model(adapted)
    assert (model.input_shape, model.output_shape) == ((None, size, size, 3), (None, 3))


def test_a_recipe_says_which_sizes_it_takes() -> None:
    with pytest.raises(RecipeError, match=r"does not take .* 96 × 96 .*; it takes 32, 64"):
        own_size(find_recipe("compact"), 96)
    assert own_size(find_recipe("mobilenetv2_head"), 224) == 224
    assert own_size(find_recipe("mobilenetv2_tuned"), None) == 128


def test_numbers_follow_the_size_and_the_number_of_images(own: Dataset) -> None:
    recipe = find_recipe("compact")
    adapted = for_dataset(recipe, own)
    assert adapted.batch_size == 16
    first, before = adapted.phases[0], recipe.phases[0]
    assert isinstance(first.schedule, OneCycle)
    assert first.learning_rate == pytest.approx(before.learning_rate * 16 / 256)
    assert first.augmentation is not None
    assert first.augmentation.crop == 48
    assert adapted.augmentation is not None
    assert adapted.augmentation.shift == 6
    fields = recipe_fields(adapted)
    assert fields["task"] == {"image_size": 64, "class_count": 3}
    assert "expected_parameters" not in fields


def test_cifar10_stays_as_it_is(synthetic: Dataset) -> None:
    recipe = find_recipe("compact")
    assert for_dataset(recipe, synthetic) is recipe
    assert "task" not in recipe_fields(recipe)
    assert model_name(recipe, synthetic) == "compact"
    check_size(synthetic, 32)
    with pytest.raises(RecipeError, match="--size 64 is for your own images"):
        check_size(synthetic, 64)


def test_a_model_is_named_after_its_data_set(own: Dataset) -> None:
    assert model_name(find_recipe("compact"), own) == "farben_tone_compact"
    record = dataclasses.replace(own.record, name="花")
    assert model_name(find_recipe("compact"), dataclasses.replace(own, record=record)) == (
        "own_compact"
    )


def test_a_model_of_own_images_is_trained_exported_and_quantised(
    own: Dataset, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path)
    record = train(for_dataset(TINY_SCHEDULED, own), own, store, name="farben").record
    assert (record.labels, record.image_shape) == (("grün", "none", "rot"), (64, 64, 3))
    assert record.accuracy is not None
    assert set(record.accuracy.test.per_class) == set(own.labels)
    found = dataset_of(record.dataset, record.image_shape)
    card = export_model("farben", store, found)
    assert (card.labels, card.image_shape, card.has_rejection) == (own.labels, (64, 64, 3), True)
    assert card.dataset.name == "Farben & Töne"
    variant = make_variant("farben", "int8", store, found, VariantLimits(1.0, 0.0))
    stored = store.load("farben_int8")
    assert stored.card == variant
    Predictor(stored.onnx).check_card(stored.card)
