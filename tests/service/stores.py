"""Damage to a model store, for tests of how the service refuses it."""

import dataclasses

from cifar10.card import Golden
from cifar10.records import to_json
from cifar10.store import ModelStore


def spoil_golden(store):
    """Make ``tiny_b``'s card expect a different answer."""
    path = store / "tiny_b" / "card.json"
    card = ModelStore(store).card("tiny_b")
    wrong = Golden(tuple(row[::-1] for row in card.golden.probabilities), card.golden.tolerance)
    path.write_text(to_json(dataclasses.replace(card, golden=wrong)))


def spoil_digest(store):
    path = store / "tiny_b" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
