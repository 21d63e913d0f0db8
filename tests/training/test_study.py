"""Tests of a study: it continues after a failure and lists the result of each model."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cifar10.commands.main import main
from cifar10.dataset import Dataset, split_dataset, synthetic_arrays
from cifar10.errors import WeightsError
from cifar10.store import ModelStore
from tests.conftest import add_model, linear_onnx
from tests.training.tiny import TINY, tiny_dataset
from training.networks.backbones import WeightsChoice
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.schema import Recipe
from training.run import Outcome, train
from training.smoke import cut_down
from training.study import Planned, plan, run_study
from training.study_display import summary

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def failing_on(name: str, error: Exception) -> Any:
    def train_one(recipe: Any, dataset: Dataset, store: ModelStore, **options: Any) -> Outcome:
        if options["name"] == name:
            raise error
        return train(recipe, dataset, store, **options)

    return train_one


def test_every_recipe_is_planned_with_every_seed() -> None:
    names = [one.name for one in plan((TINY, TINY), (0, 1))]
    assert names == ["tiny", "tiny", "tiny_seed1", "tiny_seed1"]
    assert [one.name for one in plan((TINY,), (2,), smoke=True)] == ["tiny_smoke_seed2"]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (WeightsError("no weights for it"), "no weights for it"),
        (MemoryError("too big"), "MemoryError: too big"),
    ],
)
def test_a_failure_is_a_row(tmp_path: Path, error: Exception, shown: str) -> None:
    planned = plan((TINY,), (0, 1))
    rows = run_study(
        planned,
        tiny_dataset(),
        ModelStore(tmp_path),
        smoke=True,
        train_one=failing_on("tiny", error),
    )
    assert [(row.name, row.error) for row in rows] == [("tiny", shown), ("tiny_seed1", None)]
    assert rows[0].record is None
    assert rows[1].record is not None
    assert rows[1].record.seed == 1
    console = Console(width=200, file=io.StringIO())
    console.print(summary(rows))
    assert f"failed: {shown}" in console.file.getvalue()


def test_finished_models_are_not_trained_again(tmp_path: Path) -> None:
    planned = plan((TINY,), (0,))
    for already_there in (False, True):
        (row,) = run_study(planned, tiny_dataset(), ModelStore(tmp_path), smoke=True)
        assert row.already_there is already_there


def test_the_command_reports_failures_by_its_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # the command sets it: put it back afterwards
    weights = tmp_path / "weights"
    weights.mkdir()
    arguments = ["study", "mobilenetv2_frozen", "simple_cnn", "--smoke", "--data", "synthetic"]
    arguments += ["--models-dir", str(tmp_path / "models"), "--weights-dir", str(weights)]
    assert main(arguments) == 3
    output = capsys.readouterr().out
    assert "mobilenetv2_frozen_smoke: failed" in output
    assert "simple_cnn_smoke: trained" in output
    assert "1 of 2 failed: mobilenetv2_frozen_smoke" in output
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["simple_cnn_smoke"]
    arguments.remove("mobilenetv2_frozen")
    assert main(arguments) == 0
    assert "simple_cnn_smoke: there" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["name"], row["already_there"], row["error"]) == ("simple_cnn_smoke", True, None)
    assert row["record"]["parameters"]["total"] > 0


def test_recipes_without_their_teacher_are_left_out_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a whole study on an empty store would always fail."""
    taken: list[list[str]] = []

    def planning(recipes: Sequence[Recipe], *_: object, **__: object) -> list[Planned]:
        taken.append([recipe.name for recipe in recipes])
        return []

    monkeypatch.setattr("training.study_display.plan", planning)
    arguments = ["study", "--data", "synthetic", "--models-dir", str(tmp_path)]
    assert main(arguments) == 0
    assert "compact is left out: it learns from whitened_cnn" in capsys.readouterr().out
    add_model(tmp_path, "whitened_cnn", linear_onnx(0))
    assert main(arguments) == 0
    assert (
        main([arguments[0], "compact", *arguments[1:]]) == 0
    )  # whoever names it gets it, or its error
    every = [recipe.name for recipe in RECIPES]
    assert taken == [[name for name in every if name != "compact"], every, ["compact"]]


def test_an_unknown_recipe_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "simple_cnn", "nothing", "--models-dir", str(tmp_path)]) == 1
    assert "no recipe 'nothing'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "smoke", "random", "images"),
    [
        ("mobilenetv2_frozen", False, False, 900),
        ("mobilenetv2_frozen", True, False, 400),
        ("mobilenetv2_frozen", False, True, 400),
        ("simple_cnn", False, True, 900),
        ("mobilenetv2_64px_few", False, False, 500),
        ("mobilenetv2_64px_few", True, False, 200),
    ],
)
def test_random_weights_train_on_few_images_and_only_backbones(
    name: str, smoke: bool, random: bool, images: int
) -> None:
    recipe, raw = find_recipe(name), synthetic_arrays(train_per_class=100, test_per_class=20)
    if recipe.train_images is not None:
        assert recipe.train_images == 600
        recipe = replace(recipe, train_images=500)
    dataset = split_dataset(raw, source="synthetic", variant="synthetic")
    found, cut = cut_down(recipe, dataset, smoke=smoke, weights=WeightsChoice(random=random))
    assert len(cut.train.labels) == cut.record.train_count == images
    assert (found == recipe) == (images in (900, 500))
