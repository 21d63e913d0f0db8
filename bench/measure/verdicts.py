"""Verdicts and confidence on a model's test images, or on a folder of photographs (``bench
verdicts``)."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bench.measure.accuracy import predict_probabilities, untimed_workers
from bench.measure.facts import has_random_weights
from bench.measure.progress import Progress, labelled
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Survey, reference_to
from bench.rows.files import Recorder
from bench.rows.kinds.verdicts import (
    COVERAGE_STEPS,
    VerdictCounts,
    VerdictMeasurement,
    covered_count,
)
from bench.rows.row import DatasetReference
from cifar10.card import ModelCard
from cifar10.commands.predict import Asked
from cifar10.data.layout import find_own_layout
from cifar10.data.own_images import read_own
from cifar10.environment import engine
from cifar10.errors import BenchError
from cifar10.labels import IMAGE_SHAPE, LABELS
from cifar10.predictor import Device
from cifar10.released import AUTO, AutoRule
from cifar10.reliability import group_by_confidence
from cifar10.sources import TEST_COUNT, TRAIN_COUNT
from cifar10.store import ModelStore
from cifar10.verdict import REJECTION, VERDICTS, Verdict

STAGE: Final = "verdicts"

_BATCH: Final = 32
"""Photographs in memory at once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """A model's answer to one image, compared with the image's true class."""

    verdict: Verdict
    is_of_classes: bool
    """Whether the image is of one of the model's classes, rather than of none of them."""
    names_class: bool
    """Whether the label is that of the true class, whatever the verdict."""
    confidence: float
    doubt: float
    """Probability of the label ``none``; without that label, 1 minus the confidence."""
    true_class: float | None
    """Probability of the true class; None if the model has no label for it."""

    @property
    def is_right(self) -> bool:
        """Whether the class is right; of the verdict ``none``, whether the image is of no class."""
        return not self.is_of_classes if self.verdict == "none" else self.names_class


def judge(card: ModelCard, probabilities: NDArray[np.float32], truth: str) -> Judged:
    """Compare an answer with the true class.

    Args:
        card: the model that answered.
        probabilities: float32 (classes,).
        truth: name of the image's class.

    Raises:
        BenchError: the card has no thresholds.
    """
    if card.calibration is None:
        message = (
            f"the card of {card.name!r} has no thresholds of verdicts: "
            f"cifar10 export {card.name} --thresholds"
        )
        raise BenchError(message)
    best = int(probabilities.argmax())
    label, confidence = card.labels[best], float(probabilities[best])
    verdict = card.calibration.verdict(label, confidence)
    has_label = truth in card.labels
    is_of_classes = has_label and truth != REJECTION
    rejection = card.labels.index(REJECTION) if card.has_rejection else None
    return Judged(
        verdict,
        is_of_classes,
        label == truth,
        confidence,
        1 - confidence if rejection is None else float(probabilities[rejection]),
        float(probabilities[card.labels.index(truth)]) if has_label else None,
    )


def summarize(
    judged: Sequence[Judged],
    *,
    provider: str,
    asked: str,
    dataset: str,
    images: Literal["test", "all"] = "test",
    small: tuple[str, str] | None = None,
    chose_thresholds: int = 0,
) -> VerdictMeasurement:
    """Return the row of some answers; the arguments are its fields.

    Raises:
        BenchError: the model has a label for none of the images.
    """
    labelled_ones = [one for one in judged if one.true_class is not None]
    if not labelled_ones:
        message = f"none of the {len(judged):,} images of {dataset} is of a class of {asked}"
        raise BenchError(message)
    ranked = sorted(judged, key=lambda one: -one.confidence)
    right = np.cumsum([one.is_right for one in ranked])
    steps = range(1, COVERAGE_STEPS + 1)
    return VerdictMeasurement(
        provider=provider,
        asked=asked,
        small=small,
        images=images,
        dataset=dataset,
        chose_thresholds=chose_thresholds,
        counts={verdict: _count(judged, verdict) for verdict in VERDICTS},
        covered=tuple(int(right[covered_count(len(ranked), step) - 1]) for step in steps),
        ordered_pairs=_ordered_pairs(
            [one.doubt for one in judged if one.is_of_classes],
            [one.doubt for one in judged if not one.is_of_classes],
        ),
        reliability=group_by_confidence(
            np.array([one.confidence for one in labelled_ones]),
            np.array([one.names_class for one in labelled_ones]),
            np.array([one.true_class or 0.0 for one in labelled_ones]),
        ),
    )


def of_test_images(
    card: ModelCard,
    probabilities: NDArray[np.float32],
    class_ids: NDArray[np.integer],
    dataset: DatasetReference,
    provider: str,
) -> VerdictMeasurement:
    """Return the row of a model's answers to test images of its own classes.

    Args:
        card: the model.
        probabilities: float32 (N, classes).
        class_ids: integers (N,), the true classes.
        dataset: what the images are of.
        provider: the execution provider that ran the model.

    Raises:
        BenchError: the card has no thresholds.
    """
    judged = [
        judge(card, row, card.labels[class_id])
        for row, class_id in zip(probabilities, class_ids.tolist(), strict=True)
    ]
    return summarize(judged, provider=provider, asked=card.name, dataset=dataset.name)


@by_dataset
def measure_test_verdicts(
    setup: Setup, names: Sequence[str], rule: AutoRule | None = None
) -> RunOutcome:
    """Measure the named models on the test images of their data sets, and record the results.

    Args:
        setup: the store, the images and the recorder.
        names: the models.
        rule: if given, the answers of its small model are recorded as those of ``auto``, too: all
            tiles go to it.

    Raises:
        BenchError: a row could not be written.
    """
    reference, test = reference_to(setup.dataset), setup.dataset.test
    with Survey(setup.recorder) as survey:
        for name in names:
            with survey.attempt(name, STAGE) as subject:
                stored = subject.load(setup.store)
                if has_random_weights(stored.card):
                    continue
                executor = setup.open_model(stored)
                probabilities = predict_probabilities(
                    executor,
                    test.images,
                    labelled(f"verdicts: {name}", setup.progress),
                    workers=untimed_workers(executor),
                )
                row = of_test_images(
                    stored.card, probabilities, test.labels, reference, executor.provider
                )
                subject.add(row, reference)
                if rule is not None and name == rule.small:
                    with survey.attempt(AUTO, STAGE, model=rule.large) as auto:
                        auto.load(setup.store)
                        small = (name, stored.card.sha256)
                        auto.add(replace(row, asked=AUTO, small=small), reference)
    return survey.outcome


@dataclass(frozen=True)
class Photographs:
    """Image files in a folder for each class."""

    reference: DatasetReference
    paths: tuple[Path, ...]
    truths: tuple[str, ...]
    """Name of each file's class."""
    tested: frozenset[int]
    """Positions of the test images, as a model of this data set is trained and tested."""


def photographs_folder(source: str | None) -> Path | None:
    """Return the folder if it holds photographs in class folders; None for a copy of CIFAR-10.

    Raises:
        BenchError: it is an archive.
        DataError: its classes cannot be a model's.
    """
    layout = find_own_layout(Path(source), named=True) if source is not None else None
    if source is None or layout is None:
        return None
    if layout.labels == LABELS and layout.count == TRAIN_COUNT + TEST_COUNT:
        return None
    if not Path(source).is_dir():
        message = f"{source} is an archive; photographs are read from a folder. Unpack it first"
        raise BenchError(message)
    return Path(source)


def read_photographs(folder: Path, progress: Progress) -> Photographs:
    """Find the photographs of a folder, their classes and the test part.

    Raises:
        DataError: there are no classes, or too few or unreadable images.
    """
    layout = find_own_layout(folder, named=True)
    if layout is None:
        message = f"{folder} is a copy of CIFAR-10, not a folder of photographs"
        raise BenchError(message)
    with tempfile.TemporaryDirectory() as scratch:
        told = partial(progress, "reading the photographs")
        found = read_own(folder, layout, IMAGE_SHAPE, Path(scratch), told)
    name = folder.resolve().name
    return Photographs(
        DatasetReference(f"{name}-{found.fingerprint[:8]}", found.fingerprint, name),
        tuple(folder / one for one in found.names),
        tuple(found.labels[class_id] for class_id in found.class_ids),
        frozenset(found.splits["test"].tolist()),
    )


def measure_photographs(
    store: ModelStore,
    names: Sequence[str],
    folder: Path,
    recorder: Recorder,
    *,
    rule: AutoRule | None = None,
    device: Device = "auto",
    progress: Progress,
) -> RunOutcome:
    """Measure models on photographs of any size, decoded as the service does it.

    A model that was validated on these photographs gets a second row, of the test part alone.

    Args:
        store: the models.
        names: the models, among them ``auto`` if there is a ``rule``.
        folder: the photographs.
        recorder: writes the rows.
        rule: which model of ``auto`` answers which image.
        device: the device to run on.
        progress: receives the progress.

    Raises:
        BenchError: a row could not be written.
        DataError: the photographs cannot be used.
    """
    photographs = read_photographs(folder, progress)
    reference = photographs.reference
    with Survey(recorder) as survey:
        for name in names:
            followed = rule if name == AUTO else None
            model = followed.large if followed is not None else name
            with survey.attempt(name, STAGE, model=model) as subject:
                card = subject.load(store).card
                if has_random_weights(card):
                    continue
                asked = Asked(store, None if followed else name, followed, device, engine())
                told = labelled(f"verdicts: {name}", progress)
                judged = dict(_judge_files(asked, photographs, told))
                own = card.dataset.fingerprint == reference.fingerprint
                chose = card.calibration.image_count if own and card.calibration else 0
                small = None
                if followed is not None:
                    small = (followed.small, store.card(followed.small).sha256)
                row = summarize(
                    list(judged.values()),
                    provider=asked.open(model)[1].provider,
                    asked=name,
                    dataset=reference.name,
                    images="all",
                    small=small,
                    chose_thresholds=chose,
                )
                subject.add(row, reference)
                if own:
                    tested = [one for place, one in judged.items() if place in photographs.tested]
                    part = summarize(
                        tested, provider=row.provider, asked=name, dataset=reference.name,
                        small=small,
                    )  # fmt: skip
                    subject.add(part, reference)
    return survey.outcome


def _judge_files(
    asked: Asked, photographs: Photographs, progress: Progress
) -> Iterator[tuple[int, Judged]]:
    """Yield the position and the answer of each photograph; those over the service's limits are
    left out."""
    count = len(photographs.paths)
    for start in range(0, count, _BATCH):
        progress("", start, count)
        paths = photographs.paths[start : start + _BATCH]
        for place, found in enumerate(asked.probabilities(paths), start):
            if isinstance(found, str):
                logger.warning("%s is left out: %s", photographs.paths[place], found)
                continue
            stored, probabilities = found
            yield place, judge(stored.card, probabilities, photographs.truths[place])


def _count(judged: Sequence[Judged], verdict: Verdict) -> VerdictCounts:
    given = [one for one in judged if one.verdict == verdict]
    known = [one for one in given if one.is_of_classes]
    return VerdictCounts(len(known), sum(one.is_right for one in known), len(given) - len(known))


def _ordered_pairs(of_classes: Sequence[float], of_others: Sequence[float]) -> float:
    """Return the number of pairs in which the second doubt is larger, ties as halves (the U of Mann
    and Whitney)."""
    ranked, others = np.sort(np.array(of_classes)), np.array(of_others)
    below = np.searchsorted(ranked, others, "left")
    up_to = np.searchsorted(ranked, others, "right")
    return float((below + up_to).sum() / 2)
