"""Tests of what is said of one image."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cifar10.store import ModelStore
from cifar10.verdict import Calibration
from service.prediction import prediction

CALIBRATION = Calibration(
    temperature=1.0,
    error=0.01,
    images="validation images",
    image_count=1000,
    sure=0.9,
    likely=0.6,
    rejected=0.2,
)


def answered(tiny_store: Path, calibration: Calibration | None, confidence: float):
    store = ModelStore(tiny_store)
    card = replace(store.card(store.names()[0]), calibration=calibration)
    rest = (1 - confidence) / (len(card.labels) - 1)
    probabilities = [rest] * len(card.labels)
    probabilities[2] = confidence
    return prediction(SimpleNamespace(card=card), probabilities, 1)


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(0.95, "sure"), (0.7, "likely"), (0.5, "unsure"), (0.19, "none")],
)
def test_the_verdict_is_that_of_the_card_s_thresholds(tiny_store, confidence, verdict):
    answer = answered(tiny_store, CALIBRATION, confidence)
    assert answer["verdict"] == verdict
    assert answer["confidence"] == confidence


def test_a_card_without_thresholds_has_no_verdict(tiny_store):
    assert answered(tiny_store, None, 0.95)["verdict"] is None
