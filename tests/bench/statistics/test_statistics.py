import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics.samples import (
    Interval,
    bootstrap_interval,
    interquartile_range,
    median,
    percentile,
)

FLOATS = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.lists(FLOATS, min_size=1, max_size=200), st.floats(0, 100))
def test_percentile_is_numpys(samples: list[float], percent: float) -> None:
    expected = float(np.percentile(samples, percent))
    assert percentile(samples, percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_percentiles_are_ordered_and_within_the_samples(samples: list[float]) -> None:
    p50, p90, p99 = (percentile(samples, level) for level in (50, 90, 99))
    assert min(samples) <= p50 <= p90 <= p99 <= max(samples)


def test_percentiles_of_known_values() -> None:
    assert median([1, 2, 3, 10]) == 2.5
    assert interquartile_range([1, 2, 3, 4, 5]) == 2
    assert percentile([7], 99) == 7


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        median([])


def test_bootstrap_repeats_for_a_seed_and_covers_the_median() -> None:
    samples = np.random.default_rng(1).normal(10, 2, 400)
    first = bootstrap_interval(samples, seed=3)
    assert first == bootstrap_interval(samples, seed=3)
    assert first != bootstrap_interval(samples, seed=4)
    assert first.low < median(samples) < first.high
    assert first.high - first.low < 1


def test_bootstrap_of_equal_samples_is_a_point() -> None:
    assert bootstrap_interval([5.0] * 30) == Interval(5.0, 5.0)
