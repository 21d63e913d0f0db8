"""Accuracy on damaged test images and on typical user uploads (``bench robustness``).

The copies are made once for all models, one way at a time. Each model's row for a way is written as
soon as it is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.corruptions import CORRUPTIONS, SEED, Corruption, Images, corrupt
from bench.measure.facts import has_random_weights
from bench.measure.latency import Executor
from bench.measure.sendings import SENDINGS, Sending, sent
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Survey, reference_to
from bench.rows.kinds.accuracy import (
    SEVERITIES,
    RobustnessMeasurement,
    SendingMeasurement,
)
from bench.rows.packed import pack_hits
from bench.rows.row import Measurement
from cifar10.dataset import Split
from cifar10.labels import IMAGE_SHAPE
from cifar10.machine import usable_cores

DEFAULT_IMAGES: Final = 2_000
"""Number of test images, each with 25 damaged copies.

This takes half a minute for a small model, and gives ± 2 points at 70 %.
"""

Hits = NDArray[np.bool_]
"""Whether each image is classified correctly."""
Copies = Callable[[Images], list[Images]]
"""Function that makes the copies for one way, uint8 (N, height, width, 3) RGB each."""
MakeRow = Callable[[str, str, Hits, list[Hits]], Measurement]
"""Function that makes a row.

Its arguments are the way, the execution provider, the hits on the original images, and the hits on
each of the copies.
"""


def choose_images(test: Split, count: int, seed: int = SEED) -> Split:
    """Return a seeded sample of ``count`` test images in test-set order, or all if fewer."""
    if count >= len(test.labels):
        return test
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(test.labels), count, replace=False))
    return Split(test.images[chosen], test.labels[chosen])


@by_dataset
def measure_robustness(
    setup: Setup,
    names: Sequence[str],
    *,
    images: int = DEFAULT_IMAGES,
    seed: int = SEED,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
) -> RunOutcome:
    """Measure the named models on corrupted copies, five severities each, and record the results.

    Models with random weights have no accuracy and are skipped. ``seed`` determines the sample of
    images and the noise.

    Raises:
        BenchError: a row could not be written.
    """
    by_name = {one.name: one for one in corruptions}

    def copies(one: Corruption) -> Copies:
        return lambda clean: [corrupt(one, clean, level, seed) for level in SEVERITIES]

    def row(way: str, provider: str, clean: Hits, damaged: list[Hits]) -> Measurement:
        return RobustnessMeasurement(
            provider=provider,
            corruption=way,
            parameter=by_name[way].parameter,
            strengths=by_name[way].strengths,
            images=clean.size,
            seed=seed,
            clean_correct=int(clean.sum()),
            correct=tuple(int(hits.sum()) for hits in damaged),
        )

    return _measure_copies(
        setup,
        names,
        choose_images(setup.dataset.test, images, seed),
        "robustness",
        {name: copies(one) for name, one in by_name.items()},
        row,
    )


@by_dataset
def measure_sendings(
    setup: Setup,
    names: Sequence[str],
    *,
    images: int = DEFAULT_IMAGES,
    seed: int = SEED,
    sendings: Sequence[Sending] = SENDINGS,
) -> RunOutcome:
    """Measure the named models on test images encoded like user uploads, and record the results.

    The images are the same as in :func:`measure_robustness`. Models of other images than tiles are
    skipped: the copies are made for tiles.

    Raises:
        BenchError: a row could not be written.
    """

    if setup.dataset.image_shape != IMAGE_SHAPE:
        return RunOutcome()

    def copies(one: Sending) -> Copies:
        return lambda clean: [sent(one, clean, seed, usable_cores())]

    def row(way: str, provider: str, clean: Hits, as_sent: list[Hits]) -> Measurement:
        hits = pack_hits(as_sent[0])
        return SendingMeasurement(provider, way, clean.size, seed, pack_hits(clean), hits)

    return _measure_copies(
        setup,
        names,
        choose_images(setup.dataset.test, images, seed),
        "sending",
        {one.name: copies(one) for one in sendings},
        row,
    )


def _measure_copies(
    setup: Setup,
    names: Sequence[str],
    chosen: Split,
    stage: str,
    ways: Mapping[str, Copies],
    make_row: MakeRow,
) -> RunOutcome:
    reference = reference_to(setup.dataset)
    executors: dict[str, Executor] = {}
    clean: dict[str, Hits] = {}
    with Survey(setup.recorder) as survey:
        for name in names:
            with survey.attempt(name, stage) as subject:
                stored = subject.load(setup.store)
                if not has_random_weights(stored.card):
                    executors[name] = setup.open_model(stored)
                    clean[name] = _hits(executors[name], chosen.images, chosen.labels)
        for position, (way, make_copies) in enumerate(ways.items()):
            subjects = survey.unfailed(clean)
            if not subjects:
                break
            setup.progress(f"{stage}: {way}", position, len(ways))
            copies = make_copies(chosen.images)
            for name in subjects:
                with survey.attempt(name, stage) as subject:
                    executor = executors[name]
                    found = [_hits(executor, one, chosen.labels) for one in copies]
                    subject.add(make_row(way, executor.provider, clean[name], found), reference)
    return survey.outcome


def _hits(executor: Executor, images: Images, labels: NDArray[np.integer]) -> Hits:
    workers = untimed_workers(executor)
    hits: Hits = predict_classes(executor, images, workers=workers) == labels
    return hits
