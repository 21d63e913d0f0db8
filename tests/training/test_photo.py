"""Tests of ``photo``: its groups, its graph against the formula, and the fitted classifier."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from cifar10.card import DatasetRecord
from cifar10.data.photographs import PHOTO_LABELS, RESOLUTION, enlarged, with_tiles
from cifar10.dataset import Dataset, Split
from cifar10.errors import DataError, WeightsError
from cifar10.labels import LABELS
from tests.training.tiny import tiny_dataset
from training.networks.backbones import WeightsChoice
from training.networks.grouped import GROUPS, GroupedClassifier, grouped_model
from training.photo import TOP_FILE, fit_classifier, imagenet_classifier

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANDOM = np.random.default_rng(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_every_class_has_its_own_imagenet_classes():
    assert tuple(GROUPS) == LABELS
    members = [member for group in GROUPS.values() for member in group]
    assert len(set(members)) == len(members) == 222
    assert all(0 <= member < 1000 for member in members)


def test_the_graph_computes_the_published_rule(tmp_path):
    classifier = GroupedClassifier()
    imagenet = (
        RANDOM.normal(0, 1, (1280, 1000)).astype(np.float32),
        RANDOM.normal(0, 1, 1000).astype(np.float32),
    )
    model = grouped_model(classifier, imagenet, "photo")
    kernel = RANDOM.normal(0, 1, (1280, 10)).astype(np.float32)
    model.get_layer("head").set_weights([kernel, np.zeros(10, np.float32)])
    model.save(tmp_path / "photo.keras")
    model = keras.saving.load_model(tmp_path / "photo.keras", compile=False)
    images = RANDOM.integers(0, 256, (2, RESOLUTION, RESOLUTION, 3)).astype(np.uint8)
    features = np.asarray(keras.Model(model.input, model.get_layer("pooled").output)(images))
    found = np.asarray(model(images))

    soft = softmax((features @ imagenet[0] + imagenet[1]) / classifier.softening)
    head = features @ kernel
    means = np.stack([soft[:, list(group)].mean(axis=1) for group in GROUPS.values()], axis=1)
    ten = classifier.softening * np.log(means + 1e-6) + classifier.head_share * head
    ten = softmax(classifier.sharpness * ten)
    inside = sum(soft[:, list(group)].sum(axis=1) for group in GROUPS.values())
    evidence = classifier.softening * np.log((inside + 1e-6) / (1 - inside + 1e-6))
    evidence += classifier.rejection_head_share * np.log(np.exp(head).sum(axis=1))
    logit = classifier.rejection_slope * evidence + classifier.rejection_offset
    accepted = 1 / (1 + np.exp(-logit))
    place = PHOTO_LABELS.index("none")
    others = np.delete(found, place, axis=1)
    np.testing.assert_allclose(others, ten * accepted[:, np.newaxis], atol=1e-4)
    np.testing.assert_allclose(found[:, place], 1 - accepted, atol=1e-4)


def test_the_classifier_separates_what_is_separable_whatever_the_scale():
    centres = RANDOM.normal(0, 1, (10, 40))
    labels = RANDOM.integers(0, 10, 2_000)
    scale = np.logspace(-2, 2, 40)
    features = ((centres[labels] + RANDOM.normal(0, 0.2, (2_000, 40))) * scale + scale).astype(
        np.float32
    )
    kernel, bias = fit_classifier(features, labels, 0.01)
    assert ((features @ kernel + bias).argmax(axis=1) == labels).mean() > 0.99


def photographs() -> Dataset:
    images = np.zeros((6, RESOLUTION, RESOLUTION, 3), np.uint8)
    labels = np.array([0, 10, 3, 4, 10, 5], np.uint8)
    record = DatasetRecord("own", "own", "0" * 64, 3, 2, 1, "photographs")
    parts = (slice(0, 3), slice(3, 5), slice(5, 6))
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    return Dataset(train, validation, test, record, PHOTO_LABELS)


def test_photographs_validate_and_report_and_only_tiles_train():
    tiles = tiny_dataset()
    found = with_tiles(photographs(), tiles)
    assert found.validation.labels.tolist() == [0, 10, 3, 4, 10]
    assert found.test.labels.tolist() == [5]
    assert found.record.validation_count == 5
    np.testing.assert_array_equal(found.train.images[:2], enlarged(tiles.train.images[:2]))
    names = [PHOTO_LABELS[label] for label in found.train.labels]
    assert names == [LABELS[label] for label in tiles.train.labels[:1000]]


def test_photographs_of_other_classes_are_refused():
    with pytest.raises(DataError, match=r"expected a folder for each of airplane, .*, none, ship"):
        with_tiles(replace(photographs(), labels=LABELS), tiny_dataset())


@pytest.mark.parametrize("content", [b"", b"no arrays"])
def test_a_damaged_classifier_is_named(tmp_path, content):
    (tmp_path / TOP_FILE).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{TOP_FILE} does not hold the classifier's kernel"):
        imagenet_classifier(WeightsChoice(tmp_path))
