"""Make ``photo`` from published ImageNet weights and CIFAR-10 images.

There is no training loop: a linear classifier is fitted on the features of enlarged CIFAR-10
images, in a few minutes. Photographs are not trained on. The export chooses the temperature and the
thresholds of the verdicts on the loader's training and validation parts together; the test part is
for testing.
"""

import logging
import time
import zipfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.accuracy import measure_accuracy
from cifar10.card import (
    SCHEMA_VERSION,
    AccuracyRecord,
    TrainingCost,
    TrainingRecord,
)
from cifar10.data.photographs import PHOTO, RESOLUTION, enlarged
from cifar10.dataset import Dataset, Split
from cifar10.errors import WeightsError
from cifar10.labels import CLASS_COUNT
from cifar10.records import to_json
from cifar10.store import KERAS_FILE, TRAINING_FILE, ModelStore, file_sha256, write_atomic
from training import batches
from training.networks.backbone_models import BuiltBackbone
from training.networks.backbones import Backbone, Head, WeightsChoice
from training.networks.grouped import GroupedClassifier, grouped_model
from training.networks.models import count_parameters
from training.observer import Observer
from training.provenance import git_commit, hardware, library_versions
from training.weights import find_weights, load_weights

TOP_FILE: Final = "mobilenet_v2_imagenet_top.npz"
"""Name of the file with the classifier, in a folder of weights: ``kernel`` and ``bias``."""

_BACKBONE: Final = Backbone(
    backbone="mobilenetv2",
    resolution=RESOLUTION,
    preprocessing="native",
    head=Head(pooling="average"),
    trained_layers=(0,),
)
_BATCH: Final = 32
_BLOCK: Final = 512
"""Number of images enlarged at once, 77 MB."""
_STEPS: Final = 400
_LEARNING_RATE: Final = 0.02
logger = logging.getLogger(__name__)


def make_photo(
    dataset: Dataset,
    tiles: Dataset,
    store: ModelStore,
    weights: WeightsChoice = WeightsChoice(),
    classifier: GroupedClassifier = GroupedClassifier(),
    observer: Observer = Observer(),
) -> TrainingRecord:
    """Make the model; leaves ``model.keras`` and ``training.json`` in ``photo``'s folder.

    Args:
        dataset: photographs, as :func:`cifar10.data.photographs.with_tiles` returns them.
        tiles: CIFAR-10; its first training images fit the added classifier.
        store: store to write the model to.
        weights: source of the network's weights.
        classifier: weights of the outputs.
        observer: receives the progress of feature extraction.

    Raises:
        WeightsError: the weights are not available.
    """
    commit, started = git_commit(), time.perf_counter()
    keras.utils.set_random_seed(0)
    kernel, bias, source = imagenet_classifier(weights)
    model = grouped_model(classifier, (kernel, bias), PHOTO)
    file = find_weights(_BACKBONE, weights)
    base = keras.Model(model.input, model.get_layer("out_relu").output)
    loaded = load_weights(BuiltBackbone(model, base, tuple(base.layers)), _BACKBONE, file)
    pooled = keras.Model(model.input, model.get_layer("pooled").output)
    count = min(classifier.head_images, len(tiles.train.labels))
    features = _features(pooled, tiles.train.images[:count], observer)
    model.get_layer("head").set_weights(
        fit_classifier(features, tiles.train.labels[:count], classifier.head_decay)
    )
    seconds = time.perf_counter() - started
    folder = store.folder(PHOTO)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINING_FILE).unlink(missing_ok=True)
    temporary = folder / f".{KERAS_FILE}.new.keras"
    model.save(temporary)
    temporary.replace(folder / KERAS_FILE)
    accuracies = {}
    for name in ("validation", "test"):  # enlarged tiles say nothing about photographs
        observer.evaluating(name)
        part: Split = getattr(dataset, name)
        answers = batches.predict(model, part.images, _BATCH).argmax(axis=1)
        accuracies[name] = measure_accuracy(answers, part.labels, dataset.labels)
    record = TrainingRecord(
        schema_version=SCHEMA_VERSION,
        name=PHOTO,
        recipe=PHOTO,
        recipe_fields=asdict(classifier) | {"architecture": {"backbone": "mobilenetv2"}},
        seed=0,
        commit=commit,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        preprocessing="cast to float32, divided by 127.5 and 1 subtracted, giving −1 to 1",
        parameters=count_parameters(model),
        weights=replace(loaded, source=f"{loaded.source}; its classifier: {source}"),
        dataset=dataset.record,
        accuracy=AccuracyRecord(
            None, accuracies["validation"], accuracies["test"], overfitting_gap=None
        ),
        training=TrainingCost(
            epochs=1,
            best_epoch=1,
            seconds=seconds,
            seconds_per_epoch=(seconds,),
            resumed=0,
            backend=keras.backend.backend(),
            hardware=hardware(),
        ),
        keras_sha256=file_sha256(folder / KERAS_FILE),
        versions=library_versions(),
        labels=dataset.labels,
        image_shape=dataset.image_shape,
        fit="crop",
    )
    write_atomic(folder / TRAINING_FILE, to_json(record))
    return record


def imagenet_classifier(
    weights: WeightsChoice,
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    """Return kernel (1280, 1000) and bias (1000,) of MobileNetV2's classifier, and their source.

    Raises:
        WeightsError: there is no file in the folder named, or the download failed.
    """
    if weights.directory is not None:
        path: Path = weights.directory / TOP_FILE
        try:
            with np.load(path, allow_pickle=False) as file:
                return file["kernel"], file["bias"], f"{TOP_FILE} ({file_sha256(path)[:12]})"
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            message = (
                f"{path} does not hold the classifier's kernel and bias ({error}). Without "
                "--weights-dir they come from Keras"
            )
            raise WeightsError(message) from error
    try:
        whole = keras.applications.MobileNetV2(weights="imagenet")
    except Exception as error:  # Keras raises a plain Exception when a download fails
        message = (
            f"MobileNetV2 with its classifier cannot be downloaded ({error}). Name a folder with "
            f"its weights and {TOP_FILE} with --weights-dir"
        )
        raise WeightsError(message) from error
    kernel, bias = whole.layers[-1].get_weights()
    return kernel, bias, "Keras"


def fit_classifier(
    features: NDArray[np.float32], labels: NDArray[np.integer], decay: float
) -> list[NDArray[np.float32]]:
    """Fit a linear classifier by gradient descent (Adam) on all features at once.

    Args:
        features: float32 (N, D).
        labels: integer (N,), 0–9.
        decay: L2 penalty of the kernel, on standardised features.

    Returns:
        Kernel (D, 10) and bias (10,), for the features as they are.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
    scaled = ((features - mean) / deviation).astype(np.float32)
    wanted = np.eye(CLASS_COUNT, dtype=np.float32)[labels]
    kernel = np.zeros((features.shape[1], CLASS_COUNT), np.float32)
    bias = np.zeros(CLASS_COUNT, np.float32)
    kernel_moments, bias_moments = _Moments(kernel), _Moments(bias)
    for step in range(1, _STEPS + 1):
        logits = scaled @ kernel + bias
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (raised / raised.sum(axis=1, keepdims=True) - wanted) / len(scaled)
        kernel -= kernel_moments.step(scaled.T @ error + decay * kernel, step)
        bias -= bias_moments.step(error.sum(axis=0), step)
    kernel /= deviation[:, np.newaxis]
    return [kernel, bias - mean @ kernel]


class _Moments:
    """Adam's running moments of one array's gradient (Kingma and Ba, arXiv 1412.6980)."""

    def __init__(self, value: NDArray[np.float32]) -> None:
        self._first, self._second = np.zeros_like(value), np.zeros_like(value)

    def step(self, gradient: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """Return what to subtract in step ``number``, from 1 on; the rate falls to 0."""
        self._first += 0.1 * (gradient - self._first)
        self._second += 0.01 * (gradient**2 - self._second)
        first = self._first / (1 - 0.9**number)
        root = np.sqrt(self._second / (1 - 0.99**number)) + 1e-8
        rate = _LEARNING_RATE * (1 - number / _STEPS)
        result: NDArray[np.float32] = rate * first / root
        return result


def _features(
    pooled: keras.Model, tiles: NDArray[np.uint8], observer: Observer
) -> NDArray[np.float32]:
    found = []
    for start in range(0, len(tiles), _BLOCK):
        observer.features_extracted(start, len(tiles))
        block = enlarged(tiles[start : start + _BLOCK])
        found.append(batches.predict(pooled, block, _BATCH))
    observer.features_extracted(len(tiles), len(tiles))
    return np.concatenate(found)
