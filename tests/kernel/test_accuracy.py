"""Tests of accuracy and its confidence interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar10.accuracy import measure_accuracy, wilson_interval
from cifar10.labels import LABELS


def test_wilson_interval_matches_published_values():
    """Newcombe (1998), table I: 81 of 263 and 0 of 20 (Statistics in Medicine 17, 857–872)."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_share_and_stays_within_0_and_1(pair):
    correct, count = pair
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count <= high <= 1
    assert low < high


@pytest.mark.parametrize(("correct", "count"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_rejects_impossible_counts(correct, count):
    with pytest.raises(ValueError, match="need 0 <= correct <= count"):
        wilson_interval(correct, count)


def test_overall_and_per_class_accuracy():
    found = measure_accuracy(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), LABELS)
    assert (found.correct, found.count, found.accuracy) == (2, 4, 0.5)
    assert found.per_class == {"airplane": 1.0, "automobile": pytest.approx(1 / 3)}
    found = measure_accuracy(np.array([0, 0]), np.array([0, 2]), ("Nelke", "Rose", "Lilie"))
    assert found.per_class == {"Nelke": 1.0, "Lilie": 0.0}


def test_vectors_of_different_lengths_are_rejected():
    with pytest.raises(ValueError, match="equal length"):
        measure_accuracy(np.zeros(3, int), np.zeros(4, int), LABELS)
