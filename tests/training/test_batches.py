"""Tests that training on our batches equals training on the arrays."""

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.tiny import TINY, TINY_SCHEDULED, tiny_dataset
from training import batches
from training.networks.models import build_model, compile_model

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BATCH = 48


def fresh() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_model(TINY_SCHEDULED, for_training=True)
    compile_model(model, TINY_SCHEDULED.phases[0])
    return model


@pytest.fixture
def arrays() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    dataset = tiny_dataset()
    count = 3 * BATCH + 7  # the last batch is a small one
    return dataset.train.images[:count], dataset.train.labels[:count]


@pytest.mark.parametrize("backend", ["tensorflow", "another"])
def test_batches_train_bit_for_bit_like_keras(
    arrays: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    """The result equals that of Keras' own pipeline, which other backends use."""
    images, labels = arrays
    ours, theirs = fresh(), fresh()
    monkeypatch.setattr("training.batches.keras.backend.backend", lambda: backend)
    same(ours, theirs, images, labels)


def test_features_in_half_precision_are_trained_on_in_single(
    arrays: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    images, labels = arrays
    features = (images / 255).astype(np.float16)

    def head() -> keras.Model:
        keras.utils.set_random_seed(0)
        feature = keras.Input(features.shape[1:])
        pooled = keras.layers.GlobalAveragePooling2D()(feature)
        model = keras.Model(feature, keras.layers.Dense(10, activation="softmax")(pooled))
        compile_model(model, TINY.phases[0])
        return model

    same(head(), head(), features, labels)


def same(
    ours: keras.Model, theirs: keras.Model, inputs: NDArray[Any], labels: NDArray[Any]
) -> None:
    found = batches.fit(ours, inputs, labels, BATCH)
    expected = theirs.fit(inputs, labels, batch_size=BATCH, shuffle=False, verbose=0).history
    assert found == {name: values[0] for name, values in expected.items()}
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert batches.evaluate(ours, inputs, labels, BATCH) == theirs.evaluate(
        inputs, labels, batch_size=BATCH, verbose=0, return_dict=True
    )
    np.testing.assert_array_equal(
        batches.predict(ours, inputs, BATCH), theirs.predict(inputs, batch_size=BATCH, verbose=0)
    )


def test_the_pipeline_is_untuned_and_uses_every_image(
    arrays: tuple[NDArray[np.uint8], NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = arrays
    given: list[Any] = []

    def seen(self: keras.Model, x: Any = None, **_: Any) -> dict[str, float]:
        given.append(x)
        return {}

    monkeypatch.setattr(keras.Model, "evaluate", seen)
    batches.evaluate(fresh(), images, labels, BATCH)
    (fed,) = given
    assert fed.options().autotune.enabled is False
    assert len(fed) == 4
    parts = [(np.asarray(some), np.asarray(their)) for some, their in fed]
    np.testing.assert_array_equal(np.concatenate([some for some, _ in parts]), images)
    np.testing.assert_array_equal(np.concatenate([their for _, their in parts]), labels)
