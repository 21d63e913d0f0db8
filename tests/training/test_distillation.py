"""Tests of distillation: targets with the teacher's answers, computed once per teacher."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar10.card import read_training_record
from cifar10.errors import RecipeError
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from export.run import export_model
from tests.conftest import add_model, linear_onnx
from tests.training.tiny import TINY, TINY_SCHEDULED, tiny_dataset
from training import distillation, drawn_epochs, run
from training.augmentation import augment
from training.distillation import find_teacher, softened
from training.history import EpochRow
from training.networks.models import build_model, compile_model
from training.observer import Observer
from training.recipes.schema import Augmentation, Distillation, recipe_fields, smoke_form
from training.run import train
from training.targets import make_targets

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HOW = Distillation(teacher="tiny", share=0.75, temperature=2.0)
TAUGHT = dataclasses.replace(TINY_SCHEDULED, name="taught", distillation=HOW)
DATASET = tiny_dataset()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Return a store with a teacher."""
    found = ModelStore(tmp_path_factory.mktemp("teachers"))
    train(TINY, DATASET, found)
    export_model("tiny", found, DATASET)
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR10_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "targets"


def test_a_temperature_keeps_the_order_and_the_sum() -> None:
    given = np.array([[0.7, 0.2, 0.1, *[0.0] * 7]], np.float32)
    np.testing.assert_allclose(softened(given, 1.0), given, atol=1e-6)
    soft = softened(given, 2.0)
    np.testing.assert_allclose(soft.sum(), 1.0, rtol=1e-6)
    # (0.7 / 0.1) to one half
    np.testing.assert_allclose(soft[0, 0] / soft[0, 2], np.sqrt(7), rtol=1e-4)


def test_the_answers_are_the_teacher_s_for_an_image_and_its_mirror(
    store: ModelStore, own_cache: Path
) -> None:
    teacher = find_teacher(TAUGHT, store)
    assert teacher is not None
    told = dataclasses.replace(HOW, temperature=1.0)
    found = teacher.targets(told, DATASET, own_cache)
    predictor = Predictor(teacher.stored.onnx, PredictorOptions())
    images = DATASET.train.images
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    expected = (predictor.predict(images) + predictor.predict(mirrored)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_teacher_answers_are_cached_and_damage_is_detected(
    store: ModelStore, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Counting(Predictor):
        def __init__(self, *arguments: object) -> None:
            asked.append(1)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(distillation, "Predictor", Counting)
    teacher = find_teacher(TAUGHT, store)
    assert teacher is not None
    first = teacher.targets(HOW, DATASET, own_cache)
    np.testing.assert_array_equal(teacher.targets(HOW, DATASET, own_cache), first)
    assert len(asked) == 1
    (kept,) = own_cache.iterdir()
    for damaged in (kept.read_bytes()[:-300], b"", b"\0" * 100):
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(teacher.targets(HOW, DATASET, own_cache), first)
    assert len(asked) == 4


def test_targets_mix_the_true_class_with_the_teacher_s_answer() -> None:
    labels, order = np.array([3, 0], np.uint8), np.array([1, 0])
    taught = np.full((2, 10), 0.1, np.float32)
    taught[0] = np.eye(10)[9]
    phase = TAUGHT.phases[0]
    found = make_targets(TAUGHT, phase, labels[order], 10, taught, order)
    np.testing.assert_allclose(found[0], 0.25 * np.eye(10)[0] + 0.075, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.25 * np.eye(10)[3] + 0.75 * np.eye(10)[9], atol=1e-6)
    # Validation is on the true classes.
    true = np.eye(10, dtype=np.float32)[labels]
    np.testing.assert_array_equal(make_targets(TAUGHT, phase, labels, 10), true)
    # And so is a phase without the teacher.
    alone = dataclasses.replace(phase, taught=False)
    np.testing.assert_array_equal(make_targets(TAUGHT, alone, labels, 10, taught), true)


def test_the_record_names_the_teacher_and_another_teacher_is_refused_on_resuming(
    store: ModelStore,
) -> None:
    record = train(TAUGHT, DATASET, store).record
    assert record.teacher is not None
    assert (record.teacher.name, record.teacher.sha256) == ("tiny", store.card("tiny").sha256)
    path = store.folder("taught") / "training.json"
    assert read_training_record(path.read_bytes()) == record
    assert export_model("taught", store, DATASET).teacher == record.teacher
    assert recipe_fields(TAUGHT)["distillation"] == dataclasses.asdict(HOW)


class _StopAfter(Observer):
    """Observer that ends a training after an epoch of a given phase."""

    def __init__(self, phase: str) -> None:
        self._phase = phase

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        if row.phase == self._phase:
            raise KeyboardInterrupt


def test_the_teacher_may_change_before_it_is_used(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    add_model(store.root, "tiny", linear_onnx(4))
    (phase,) = TAUGHT.phases
    phases = (
        dataclasses.replace(phase, name="labels", epochs=1, taught=False),
        dataclasses.replace(phase, name="distilled", epochs=2),
    )
    recipe = dataclasses.replace(TAUGHT, name="in_two", phases=phases)
    for stopped_in in ("labels", "distilled"):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, DATASET, store, observer=_StopAfter(stopped_in))
        if stopped_in == "labels":
            add_model(store.root, "tiny", linear_onnx(5))
    add_model(store.root, "tiny", linear_onnx(6))
    with pytest.raises(RecipeError, match="teacher_sha256"):
        train(recipe, DATASET, store)


def test_phases_may_differ_in_their_images_and_in_having_the_teacher(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe `compact` does so: first true classes, then a teacher and more augmentation."""
    (phase,) = TAUGHT.phases
    assert TAUGHT.augmentation is not None
    harder = dataclasses.replace(TAUGHT.augmentation, cutout=4)
    phases = (
        dataclasses.replace(phase, name="labels", epochs=1, taught=False),
        dataclasses.replace(phase, name="distilled", epochs=2, augmentation=harder),
    )
    recipe = dataclasses.replace(TAUGHT, name="in_phases", phases=phases)
    changed, targets = [], []

    def augmenting(images: Any, how: Augmentation, *drawn: Any) -> Any:
        changed.append(how)
        return augment(images, how, *drawn)

    def aiming(*arguments: Any) -> Any:
        found = make_targets(*arguments)
        if len(found) == len(DATASET.train.labels):
            targets.append(found)
        return found

    monkeypatch.setattr(drawn_epochs, "augment", augmenting)
    monkeypatch.setattr(run, "make_targets", aiming)
    record = train(recipe, DATASET, store).record
    assert changed == [TAUGHT.augmentation, harder, harder]
    assert [bool(found.max(axis=1).min() == 1) for found in targets] == [True, False, False]
    fields = record.recipe_fields["phases"]
    assert (fields[0]["taught"], "taught" in fields[1]) == (False, False)
    assert ("augmentation" in fields[0], fields[1]["augmentation"]["cutout"]) == (False, 4)


def test_a_missing_teacher_is_an_error_that_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"learns from 'tiny'.*cifar10 train tiny &&"):
        train(TAUGHT, DATASET, ModelStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_smoke_form_needs_no_teacher() -> None:
    assert smoke_form(TAUGHT).distillation is None


def test_targets_without_smoothing_take_the_dense_loss() -> None:
    model = build_model(TINY)
    compile_model(model, TINY.phases[0], soft_targets=True)
    targets = np.full((2, 10), 0.1, np.float32)
    assert np.isfinite(model.train_on_batch(DATASET.train.images[:2], targets)[0])


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"temperature": 0.0}])
def test_an_impossible_distillation_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="taught"):
        dataclasses.replace(TAUGHT, distillation=dataclasses.replace(HOW, **wrong))
