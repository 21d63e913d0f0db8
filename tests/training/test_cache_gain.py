"""What the feature cache saves is measured on the same work, done both ways."""

import functools
from typing import Any

import keras
import pytest

from cifar10.errors import RecipeError
from tests.training.tiny import TINY, tiny_dataset
from training import cache_gain
from training.cache_gain import CacheGain, measure_cache_gain
from training.recipes.catalogue import find_recipe
from training.recipes.schema import with_epochs

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RECIPE = with_epochs(find_recipe("backbone_mobilenetv2"), 2)


def test_both_ways_train_the_head_on_the_same_batches_and_trace_nothing_on_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """150 images: two whole batches and a smaller one, in each of two epochs."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    traced: list[str] = []
    on_the_clock = False
    fit, clock = keras.Model.fit, cache_gain.perf_counter

    def fitting(self: keras.Model, x: Any, *rest: Any, **options: Any) -> Any:
        if on_the_clock:
            sizes = tuple(len(images) for images, _ in x)
            seen.append((len(self.trainable_weights), sizes))
        return fit(self, x, *rest, **options)

    def watched(kind: type[keras.layers.Layer]) -> None:
        call = kind.call

        @functools.wraps(call)  # Keras looks at its signature
        def calling(self: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
            if on_the_clock:
                traced.append(self.name)
            return call(self, *inputs, **options)

        monkeypatch.setattr(kind, "call", calling)

    def told() -> float:
        nonlocal on_the_clock
        on_the_clock = not on_the_clock
        return clock()

    monkeypatch.setattr(keras.Model, "fit", fitting)
    watched(keras.layers.Dense)
    watched(keras.layers.GlobalAveragePooling2D)  # the end of the frozen part
    monkeypatch.setattr(cache_gain, "perf_counter", told)
    gain = measure_cache_gain(RECIPE, tiny_dataset(), 150)
    # Both dense layers' weights and biases, twice without the cache and twice with it.
    assert seen == [(4, (64, 64, 22))] * 4
    assert traced == []
    assert (gain.recipe, gain.images, gain.epochs) == ("backbone_mobilenetv2", 150, 2)
    assert min(gain.uncached, gain.extraction, gain.head) > 0


def test_the_ratio_counts_the_pass() -> None:
    assert CacheGain("some", 100, 5, uncached=10.0, extraction=3.0, head=1.0).ratio == 2.5


def test_a_recipe_without_a_frozen_base_is_refused() -> None:
    for recipe in (TINY, find_recipe("mobilenetv2_unfrozen")):
        with pytest.raises(RecipeError, match="nothing to cache"):
            measure_cache_gain(recipe, tiny_dataset(), 63)
