"""Tests of the verdicts: thresholds as promised, and applied as chosen."""

import numpy as np
import pytest

from cifar10.verdict import Calibration, choose_thresholds

CALIBRATION = Calibration(
    temperature=1.0,
    error=0.01,
    images="validation images",
    image_count=1000,
    sure=0.9,
    likely=0.6,
    rejected=0.2,
)


@pytest.mark.parametrize(
    ("label", "confidence", "verdict"),
    [
        ("cat", 0.9, "sure"),
        ("cat", 0.8999, "likely"),
        ("cat", 0.6, "likely"),
        ("cat", 0.5999, "unsure"),
        ("cat", 0.2, "unsure"),
        ("cat", 0.1999, "none"),
        ("none", 0.99, "none"),
    ],
)
def test_a_threshold_belongs_to_the_better_verdict(label, confidence, verdict):
    assert CALIBRATION.verdict(label, confidence) == verdict


def test_thresholds_keep_the_promised_precision_and_are_the_lowest_that_do():
    random = np.random.default_rng(0)
    confidences = random.random(20_000).astype(np.float32)
    right = random.random(20_000) < 0.3 + 0.7 * confidences  # a known reliability
    sure, likely = choose_thresholds(confidences, right)
    is_sure = confidences >= sure
    is_likely = (confidences >= likely) & ~is_sure
    assert right[is_sure].mean() >= 0.98
    assert right[is_likely].mean() >= 0.8
    below = np.sort(confidences[confidences < likely])[-2000:]
    assert right[(confidences >= below[0]) & ~is_sure].mean() < 0.8
    assert abs(sure - 0.943) < 0.03  # from there on 0.3 + 0.7 c is 0.98 on the mean


def test_answers_of_equal_confidence_stay_together():
    confidences = np.array([0.9, 0.9, 0.9, 0.5], np.float32)
    right = np.array([True, True, False, True])
    sure, likely = choose_thresholds(
        confidences, right, sure_precision=0.9, sure_bound=0.0, likely_precision=0.7
    )
    assert sure > 1
    assert likely == pytest.approx(0.5)


def test_few_images_put_the_threshold_higher():
    confidences = np.linspace(1, 0.5, 200)
    right = np.ones(200, bool)
    right[[100, 150, 199]] = False  # 98.5 % right in all, but 200 images do not prove 97 %
    sure, _ = choose_thresholds(confidences, right)
    assert sure > confidences[150]
    many, _ = choose_thresholds(np.repeat(confidences, 20), np.repeat(right, 20))
    assert many == pytest.approx(0.5)


def test_no_answer_is_sure_if_the_most_confident_are_wrong():
    sure, likely = choose_thresholds(np.array([0.9, 0.8]), np.array([False, False]))
    assert (sure, likely) == (2.0, 2.0)


def test_without_answers_there_is_no_threshold():
    assert choose_thresholds(np.empty(0), np.empty(0, bool)) == (2.0, 2.0)
