"""What the feature cache saves is measured on the same work, done both ways."""

import pytest

from cifar10.errors import RecipeError
from tests.training.tiny import TINY, tiny_dataset
from training import cache_gain
from training.cache_gain import CacheGain, measure_cache_gain
from training.catalogue import find_recipe

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_both_ways_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[tuple[str, int]] = []
    seconds = cache_gain._seconds

    def counting(model: object, recipe: object, phase: object, dataset: object, *inputs: object):  # type: ignore[no-untyped-def]
        train, validation = inputs
        epochs.append((str(train.dtype), len(train) + len(validation)))  # type: ignore[attr-defined, arg-type]
        return seconds(model, recipe, phase, dataset, train, validation)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_gain, "_seconds", counting)
    gain = measure_cache_gain(find_recipe("backbone_mobilenetv2"), tiny_dataset(), 63)
    assert epochs == [("uint8", 70), ("float16", 70)]
    assert (gain.recipe, gain.images, gain.epochs) == ("backbone_mobilenetv2", 63, 5)
    assert min(gain.uncached, gain.extraction, gain.head) > 0


def test_the_ratio_counts_the_pass() -> None:
    assert CacheGain("some", 100, 5, uncached=10.0, extraction=3.0, head=1.0).ratio == 2.5


def test_a_recipe_without_a_frozen_base_is_refused() -> None:
    for recipe in (TINY, find_recipe("mobilenetv2_unfrozen")):
        with pytest.raises(RecipeError, match="nothing to cache"):
            measure_cache_gain(recipe, tiny_dataset(), 63)
