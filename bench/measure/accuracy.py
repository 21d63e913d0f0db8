"""Top-1 accuracy of the exported graph on the test images, through ONNX Runtime.

The served file itself is measured; no figure is copied from the card.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.rows.kinds.accuracy import AccuracyMeasurement
from bench.rows.packed import pack_classes, pack_hits
from bench.rows.row import DatasetReference
from cifar10.accuracy import measure_accuracy
from cifar10.card import ModelCard
from cifar10.labels import IMAGE_SIZE
from cifar10.machine import usable_cores
from cifar10.predictor import CPU_PROVIDER
from cifar10.reliability import measure_reliability

BATCH_SIZE: Final = 250
SMALLEST_BATCH: Final = 8


def predict_classes(
    executor: Executor,
    images: NDArray[np.uint8],
    progress: Progress = silent,
    *,
    workers: int = 1,
) -> NDArray[np.int64]:
    """Return the most probable class of each image.

    Args:
        images: uint8 (N, height, width, 3), RGB.
        workers: as for :func:`predict_probabilities`.

    Returns:
        int64 (N,), class ids.
    """
    probabilities = predict_probabilities(executor, images, progress, workers=workers)
    classes: NDArray[np.int64] = probabilities.argmax(axis=1)
    return classes


def predict_probabilities(
    executor: Executor,
    images: NDArray[np.uint8],
    progress: Progress = silent,
    *,
    workers: int = 1,
) -> NDArray[np.float32]:
    """Return the class probabilities of each image, computed in batches of :func:`batch_size`.

    Args:
        images: uint8 (N, height, width, 3), RGB.
        workers: number of concurrent batches. It does not change the result. It uses the other
            cores if nothing is timed and a session uses only one core.

    Returns:
        float32 (N, classes).
    """
    size = batch_size(images)
    starts = range(0, len(images), size)
    found: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            batches = (images[start : start + size] for start in starts)
            answers = pool.map(executor.predict, batches)
            for start, answer in zip(starts, answers, strict=True):
                progress("accuracy", start, len(images))
                found.append(answer)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    progress("accuracy", len(images), len(images))
    return np.concatenate(found)


def batch_size(images: NDArray[np.uint8]) -> int:
    """Return the number of images of one batch: fewer large ones, so that memory stays bounded."""
    pixels: int = images.shape[1] * images.shape[2]
    return max(SMALLEST_BATCH, min(BATCH_SIZE, BATCH_SIZE * IMAGE_SIZE**2 // pixels))


def untimed_workers(executor: Executor) -> int:
    """Return the number of concurrent batches if nothing is timed: one for each core of the CPU."""
    return usable_cores() if executor.provider == CPU_PROVIDER else 1


def compare_with_labels(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    provider: str,
    card: ModelCard,
    dataset: DatasetReference,
    whole_test_set: bool = True,
) -> AccuracyMeasurement:
    """Return accuracy, confusion and calibration, and the card's figures for the same images.

    Args:
        probabilities: float32 (N, classes).
        labels: integers (N,), the true class ids.
        card: card of the model. Its figures are left out if they are for another data set.
        whole_test_set: False for a part of it; the card's figures are then left out.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(card.labels), len(card.labels)), np.int64)
    np.add.at(confusion, (labels.astype(np.int64), predicted), 1)
    same = whole_test_set and card.dataset.fingerprint == dataset.fingerprint
    claimed = card.accuracy if same else None
    return AccuracyMeasurement(
        provider=provider,
        top1=measure_accuracy(predicted, labels, card.labels),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        card_accuracy=claimed.test.accuracy if claimed else None,
        card_train_accuracy=claimed.train.accuracy if claimed and claimed.train else None,
        overfitting_gap=claimed.overfitting_gap if claimed else None,
        predictions=pack_classes(predicted),
        hits=pack_hits(predicted == labels),
        reliability=measure_reliability(probabilities, labels),
    )
