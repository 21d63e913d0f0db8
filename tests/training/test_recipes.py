"""Tests that every recipe builds what it promises."""

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar10.card import Parameters, training_fields
from cifar10.errors import RecipeError
from cifar10.records import to_json
from training.networks.models import (
    build_model,
    compile_model,
    count_parameters,
    describe_preprocessing,
)
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.own import SIMPLE_CNN
from training.recipes.schema import (
    AdamOneCycle,
    Phase,
    Recipe,
    recipe_fields,
    smoke_form,
    with_epochs,
)
from training.schedule import learning_rate

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


@EVERY_RECIPE
def test_a_recipe_builds_what_it_promises(recipe: Recipe) -> None:
    """Exact parameter counts, pixels in, probabilities out; one test, because building is slow."""
    model = build_model(recipe)  # refuses other parameters than expected
    assert count_parameters(model) == recipe.expected_parameters
    assert model.inputs[0].dtype == "uint8"
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    probabilities = np.asarray(model(images, training=False))
    assert probabilities.shape == (2, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    keras.backend.clear_session()


STUDY_PARAMETERS = {
    "mobilenetv2_frozen": Parameters(2_270_794, 12_810, 2_257_984),
    "mobilenetv2_finetuned": Parameters(2_270_794, 745_290, 1_525_504),
    "backbone_resnet50": Parameters(24_114_826, 527_114, 23_587_712),
    "backbone_resnet101": Parameters(43_185_290, 527_114, 42_658_176),
    "backbone_resnet152": Parameters(58_898_058, 527_114, 58_370_944),
    "backbone_vgg16": Parameters(14_848_586, 133_898, 14_714_688),
    "backbone_vgg19": Parameters(20_158_282, 133_898, 20_024_384),
    "backbone_efficientnetb0": Parameters(4_380_077, 330_506, 4_049_571),
    "backbone_efficientnetb3": Parameters(11_179_577, 396_042, 10_783_535),
    "backbone_mobilenetv2": Parameters(2_588_490, 330_506, 2_257_984),
    "backbone_mobilenetv3large": Parameters(3_244_938, 248_586, 2_996_352),
}
"""As they were counted by hand, apart from the recipes' own arithmetic."""


@pytest.mark.parametrize("name", STUDY_PARAMETERS)
def test_the_study_s_parameters_are_the_measured_ones_in_both_twins(name: str) -> None:
    assert find_recipe(name).expected_parameters == STUDY_PARAMETERS[name]
    assert find_recipe(f"{name}_native").expected_parameters == STUDY_PARAMETERS[name]


@EVERY_RECIPE
def test_every_recipe_has_a_description(recipe: Recipe) -> None:
    low, high = recipe.expected_test_accuracy
    assert 0.1 < low < high <= 1.0
    assert recipe.source
    assert recipe.cost
    assert describe_preprocessing(recipe)
    assert sum(phase.epochs for phase in smoke_form(recipe).phases) <= 5
    assert find_recipe(recipe.name) is recipe


def test_names_are_distinct() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_the_simple_cnn_is_the_study_s() -> None:
    model = build_model(SIMPLE_CNN)
    layers = [
        (type(layer).__name__, getattr(layer, "filters", getattr(layer, "units", None)))
        for layer in model.layers
    ]
    assert layers == [
        ("InputLayer", None),
        ("Rescaling", None),
        ("Conv2D", 32),
        ("MaxPooling2D", None),
        ("Conv2D", 64),
        ("MaxPooling2D", None),
        ("Flatten", None),
        ("Dense", 512),
        ("Dense", 10),
    ]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in convolutions:
        assert (layer.kernel_size, layer.padding) == ((3, 3), "same")
    assert count_parameters(model) == Parameters(2_122_186, 2_122_186, 0)
    assert SIMPLE_CNN.batch_size == 64
    assert SIMPLE_CNN.phases == (Phase(name="all", epochs=10, learning_rate=1e-3, patience=3),)


def test_an_architecture_that_differs_from_its_recipe_is_refused() -> None:
    wider = dataclasses.replace(SIMPLE_CNN.architecture, filters=(32, 65))
    with pytest.raises(RecipeError, match=r"expected .*2122186"):
        build_model(dataclasses.replace(SIMPLE_CNN, architecture=wider))


def test_the_optimizer_is_the_phase_s() -> None:
    model = build_model(SIMPLE_CNN)
    compile_model(model, SIMPLE_CNN.phases[0])
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)


def test_an_unknown_recipe_is_an_error_that_lists_the_recipes() -> None:
    with pytest.raises(RecipeError, match="no recipe 'simple_cn'; there are: simple_cnn"):
        find_recipe("simple_cn")


@pytest.mark.parametrize(
    "phases",
    [
        (),
        (SIMPLE_CNN.phases[0], SIMPLE_CNN.phases[0]),
        (Phase(name="all", epochs=0, learning_rate=1e-3, patience=3),),
        (Phase(name="all", epochs=1, learning_rate=0.0, patience=3),),
        (Phase(name="all", epochs=1, learning_rate=1e-3, patience=0),),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(phases: tuple[Phase, ...]) -> None:
    with pytest.raises(RecipeError, match="simple_cnn"):
        dataclasses.replace(SIMPLE_CNN, phases=phases)


def test_rewording_a_recipe_does_not_change_its_identity() -> None:
    reworded = dataclasses.replace(SIMPLE_CNN, cost="less than you think")
    same = training_fields(recipe_fields(reworded)) == training_fields(recipe_fields(SIMPLE_CNN))
    assert same
    shorter = training_fields(recipe_fields(with_epochs(SIMPLE_CNN, 2)))
    assert shorter != training_fields(recipe_fields(SIMPLE_CNN))


def test_recipe_fields_survive_json() -> None:
    @dataclasses.dataclass(frozen=True)
    class Holder:
        fields: dict[str, object]

    fields = recipe_fields(SIMPLE_CNN)
    assert json.loads(to_json(Holder(fields)))["fields"] == fields


def test_a_schedule_chooses_the_optimizer() -> None:
    model = build_model(SIMPLE_CNN)
    phase = dataclasses.replace(
        SIMPLE_CNN.phases[0], schedule=AdamOneCycle(rise=0.1, weight_decay=0.01)
    )
    compile_model(model, phase)
    assert type(model.optimizer) is keras.optimizers.AdamW
    assert model.optimizer.weight_decay == 0.01
    assert learning_rate(phase, 0, 100) < learning_rate(phase, 9, 100) <= phase.learning_rate
    assert learning_rate(phase, 99, 100) < 0.01 * phase.learning_rate


def test_a_new_option_does_not_change_the_identity_of_old_recipes() -> None:
    """Unused fields are not recorded, so earlier trainings are still recognised."""
    told = recipe_fields(find_recipe("mobilenetv2_frozen"))
    assert set(told["architecture"]) == {
        "type", "backbone", "resolution", "preprocessing", "head", "trained_layers",
    }  # fmt: skip
    assert recipe_fields(find_recipe("mobilenetv2_unfrozen"))["architecture"]["batch_statistics"]
    (phase,) = told["phases"]
    assert set(phase) == {"name", "epochs", "learning_rate", "patience"}


def test_teachers_are_recipes_and_reproduce_trains_them_first() -> None:
    teachers = {recipe.distillation.teacher for recipe in RECIPES if recipe.distillation}
    assert teachers
    assert teachers <= {recipe.name for recipe in RECIPES if recipe.distillation is None}
    steps = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    (named,) = re.findall(r"^TEACHER := (.+)$", steps, re.MULTILINE)
    assert set(named.split()) == teachers
    made = steps.index("cifar10 export $(TEACHER)")
    assert steps.index("cifar10 train $(TEACHER)") < made < steps.index("cifar10 study")


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    def changed(one: str, other: str) -> set[str]:
        first, second = (training_fields(recipe_fields(find_recipe(n))) for n in (one, other))
        flat = [{**fields, **fields["architecture"]} for fields in (first, second)]
        return {key for key in flat[0] if flat[0][key] != flat[1][key]} - {"architecture"}

    native = "backbone_mobilenetv2_native"
    assert changed("backbone_mobilenetv2", native) == {"preprocessing"}
    assert changed(native, "mobilenetv2_96px") == {"resolution"}
    for pixels in (64, 128, 160):
        assert changed(native, f"mobilenetv2_{pixels}px") == {"resolution"}
    assert changed("mobilenetv2_96px_x255", "mobilenetv2_96px") == {"preprocessing"}
    assert changed("mobilenetv2_96px", "mobilenetv2_96px_long") == {"phases"}
    assert changed("mobilenetv2_96px", "mobilenetv2_96px_finetuned") == {
        "trained_layers", "phases", "expected_parameters",
    }  # fmt: skip
