"""Tests of calibration and paired comparisons against values calculated by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rows.packed import pack_classes, pack_hits, unpack_classes, unpack_hits
from cifar10.paired import _approximate, _exact, mcnemar
from cifar10.reliability import Reliability, measure_reliability


def probabilities(*tops: tuple[int, float]) -> np.ndarray:
    """Return one row for each (class, probability); the other classes share the rest evenly."""
    rows = np.empty((len(tops), 10), np.float32)
    for row, (answered, confidence) in zip(rows, tops, strict=True):
        row[:] = (1 - confidence) / 9
        row[answered] = confidence
    return rows


def test_calibration_matches_a_calculation_by_hand() -> None:
    """Two answers at 95 %, one of them right; two at 55 %, both right. In ten bins:
    (2/4)·|0.5 − 0.95| + (2/4)·|1 − 0.55| = 0.45."""
    answers = probabilities((0, 0.95), (1, 0.95), (2, 0.55), (3, 0.55))
    found = measure_reliability(answers, np.array([0, 9, 2, 3]), bins=10)
    assert found.counts == (0, 0, 0, 0, 0, 2, 0, 0, 0, 2)
    assert found.correct == (0, 0, 0, 0, 0, 2, 0, 0, 0, 1)
    assert found.accuracies[9] == 0.5
    assert found.accuracies[0] is None
    assert found.confidences[5] == pytest.approx(0.55)
    assert found.expected_calibration_error == pytest.approx(0.45)
    assert found.overconfidence == pytest.approx(0.0, abs=1e-6)
    assert found.true_class_counts == (1, 0, 0, 0, 0, 2, 0, 0, 0, 1)
    missed = math.log((1 - 0.95) / 9)
    by_hand = -(math.log(0.95) + missed + 2 * math.log(0.55)) / 4
    assert found.log_loss == pytest.approx(by_hand, rel=1e-6)


def test_a_certain_answer_falls_into_the_last_bin() -> None:
    found = measure_reliability(probabilities((0, 1.0)), np.array([0]))
    assert (len(found.counts), found.counts[-1]) == (15, 1)
    assert found.expected_calibration_error == 0


def test_no_predictions_have_no_calibration() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        _ = Reliability((0,), (0,), (0.0,), (0,), 0.0).expected_calibration_error


def hits(both: int, only_first: int, only_second: int, neither: int) -> tuple:
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


def test_mcnemar_exactly() -> None:
    """2 · (C(12,0) + C(12,1) + C(12,2)) / 2¹² = 158 / 4096."""
    found = mcnemar(*hits(80, 10, 2, 8))
    assert (found.only_first, found.only_second, found.method) == (10, 2, "exact binomial")
    assert found.p_value == 158 / 4096
    assert found.is_real
    assert found.difference == pytest.approx(0.08)
    half = 1.959963984540054 * math.sqrt(12 - 64 / 100) / 100
    assert (found.low, found.high) == pytest.approx((0.08 - half, 0.08 + half))


def test_mcnemar_with_many_differences() -> None:
    """(|660 − 540| − 1)² / 1200 = 11.8008…; the square root of it is 3.4352 deviations."""
    found = mcnemar(*hits(8_000, 660, 540, 800))
    assert found.method == "chi-squared, continuity-corrected"
    assert found.p_value == pytest.approx(math.erfc(119 / math.sqrt(1200) / math.sqrt(2)))
    assert found.p_value == pytest.approx(0.00059, abs=5e-6)


def test_equal_models_do_not_differ_significantly() -> None:
    same, _ = hits(5, 0, 0, 5)
    found = mcnemar(same, same)
    assert (found.p_value, found.difference, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)


def test_other_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same images"):
        mcnemar(np.zeros(3, bool), np.zeros(4, bool))


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_both_forms_of_the_test_agree_and_are_symmetric(first: int, second: int) -> None:
    exact = _exact(first, second)
    assert 0 < exact <= 1
    assert exact == _exact(second, first)
    if first + second > 100:
        assert exact == pytest.approx(_approximate(first, second), abs=0.01)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_predictions_and_hits_survive_packing(classes: list[int]) -> None:
    predicted = np.array(classes)
    assert unpack_classes(pack_classes(predicted)).tolist() == classes
    right = predicted % 2 == 0
    assert unpack_hits(pack_hits(right), len(classes)).tolist() == right.tolist()


def test_too_few_hits_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected 9 hits"):
        unpack_hits(pack_hits(np.ones(8, bool)), 9)
