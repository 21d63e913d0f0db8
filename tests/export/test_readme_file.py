"""Tests of the README that is written for each model."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cifar10.card import ModelCard
from cifar10.store import ModelStore
from export.readme import describe
from tests.conftest import add_model, linear_onnx

RELEASED = ModelStore(Path(__file__).parents[2] / "models")


def front_matter(card: ModelCard) -> dict[str, object]:
    text = describe(card)
    _, matter, _ = text.split("---\n", 2)
    read: dict[str, object] = yaml.safe_load(matter)
    return read


@pytest.mark.parametrize("file", sorted(RELEASED.root.glob("*/README.md")), ids=str)
def test_a_released_readme_is_that_of_its_card(file: Path) -> None:
    assert file.read_text() == describe(RELEASED.card(file.parent.name)), "python -m export.readme"


def test_the_front_matter_is_what_the_hub_reads() -> None:
    found = front_matter(RELEASED.card("compact"))
    assert found["pipeline_tag"] == "image-classification"
    assert found["datasets"] == ["uoft-cs/cifar10"]
    assert found["license"] == "apache-2.0"
    (index,) = found["model-index"]  # type: ignore[misc]
    (metric,) = index["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(
        RELEASED.card("compact").accuracy.test.accuracy, abs=1e-4
    )  # type: ignore[union-attr]


def test_a_user_s_own_model_claims_no_licence_and_shows_any_label(tmp_path: Path) -> None:
    labels = ("a|b", "*c*", "none\n# x")
    card = add_model(tmp_path, "own", linear_onnx(0, (24, 32, 3), 3), labels=labels)
    found = front_matter(card)
    assert "license" not in found
    assert "datasets" not in found
    text = describe(card)
    assert r"a\|b, \*c\*, none # x" in text
    assert "32 × 24 pixels into 3 classes" in text
    assert "accuracy" not in front_matter(dataclasses.replace(card, accuracy=None))


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_the_snippet_runs(tmp_path: Path, fit: str) -> None:
    card = add_model(tmp_path, "own", linear_onnx(0))
    text = describe(dataclasses.replace(card, fit=fit))
    program = text.split("```python\n")[1].split("```")[0]
    Image.new("RGB", (90, 60), "red").save(tmp_path / "own" / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "own", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) in range(10)
