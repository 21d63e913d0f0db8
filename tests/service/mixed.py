"""A store of models that differ in image size, labels and fit."""

from pathlib import Path

import numpy as np
import pytest

from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from tests.conftest import add_model, encode, linear_onnx
from tests.kernel.hostile_images import photo, saved

FLOWERS = ("Gänseblümchen", "バラ", "tulip 🌷")
NAMES = ("compact_int8", "flowers", "photo")
TILE = encode(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8), "JPEG")
PHOTO = saved(photo(640, 480), "JPEG")
"""Above 16 KB, so it is not decoded on the event loop."""
BANNER = saved(photo(300, 40), "PNG")


def mixed_store(root: Path) -> Path:
    """Make a store of a model of tiles, one of photographs, and one of a user's own classes."""
    add_model(root, "compact_int8", linear_onnx(0))
    shape = (224, 224, 3)
    labels = (*LABELS, "none")
    add_model(root, "photo", linear_onnx(1, shape, len(labels)), labels=labels, fit="crop")
    add_model(root, "flowers", linear_onnx(2, (64, 64, 3), len(FLOWERS)), labels=FLOWERS)
    return root


def expected(store: Path, name: str, image: bytes) -> tuple[str, float]:
    """Return the label and confidence that the model gives in process."""
    stored = ModelStore(store).load(name)
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    row = predictor.predict(decode_image(image, target=stored.card.target)[np.newaxis])[0]
    return stored.card.labels[int(row.argmax())], pytest.approx(float(row.max()), abs=1e-5)
