"""``python -m bench robustness``: how accuracy holds on damaged copies of the test images.

The corrupted images are made once for all models, one corruption at a time; a row is written as
soon as a model has seen all severities of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.corruptions import CORRUPTIONS, SEED, SEVERITIES, Corruption, corrupt
from bench.measure.in_process import Open, RunOutcome
from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.rows.files import DatasetReference, Recorder
from bench.rows.kinds.measurements import RobustnessMeasurement
from cifar10.dataset import Dataset, Split
from cifar10.store import ModelStore

DEFAULT_IMAGES: Final = 2_000
"""At 25 damaged copies each, half a minute for a small model; ± 2 points at 70 %."""


@dataclass(frozen=True)
class _Subject:
    name: str
    digest: str
    executor: Executor
    clean_correct: int


def choose_images(test: Split, count: int, seed: int = SEED) -> Split:
    """A seeded choice of ``count`` test images, in the test set's order; all, where fewer."""
    if count >= len(test.labels):
        return test
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(test.labels), count, replace=False))
    return Split(test.images[chosen], test.labels[chosen])


def measure_robustness(
    store: ModelStore,
    names: Sequence[str],
    dataset: Dataset,
    recorder: Recorder,
    *,
    open_model: Open,
    images: int = DEFAULT_IMAGES,
    seed: int = SEED,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure the models named on corrupted copies and record everything.

    Models with random weights have no accuracy and are passed over.

    Args:
        store: where they are.
        names: which ones.
        dataset: its test images are corrupted.
        recorder: gets the rows.
        open_model: makes a model ready; what it raises becomes a failure row.
        images: how many test images, chosen by ``seed``.
        seed: of that choice and of the noise.
        corruptions: which ones.
        progress: told how far this is.

    Raises:
        BenchError: a row could not be written.
    """
    outcome = RunOutcome()
    reference = DatasetReference(dataset.record.variant, dataset.record.fingerprint)
    chosen = choose_images(dataset.test, images, seed)
    subjects: list[_Subject] = []

    def fail(name: str, digest: str, stage: str, error: BaseException) -> None:
        recorder.add_failure(name, digest, stage, error)
        outcome.failed[name] = f"failed at {stage}: {type(error).__name__}: {error}"

    try:
        for name in names:
            digest = ""
            try:
                stored = store.load(name)
                digest = stored.card.sha256
                if stored.card.weights is not None and stored.card.weights.random:
                    continue
                executor = open_model(stored)
                clean = _correct(executor, chosen.images, chosen.labels)
            except Exception as error:  # any reason is that model's failure row
                fail(name, digest, "robustness", error)
                continue
            subjects.append(_Subject(name, digest, executor, clean))
        for position, corruption in enumerate(corruptions):
            progress(f"robustness: {corruption.name}", position, len(corruptions))
            damaged = [corrupt(corruption, chosen.images, level, seed) for level in SEVERITIES]
            for subject in subjects:
                if subject.name in outcome.failed:
                    continue
                try:
                    correct = [
                        _correct(subject.executor, copies, chosen.labels) for copies in damaged
                    ]
                except Exception as error:  # as above
                    fail(subject.name, subject.digest, "robustness", error)
                    continue
                found = RobustnessMeasurement(
                    provider=subject.executor.provider,
                    corruption=corruption.name,
                    parameter=corruption.parameter,
                    strengths=corruption.strengths,
                    images=len(chosen.labels),
                    seed=seed,
                    clean_correct=subject.clean_correct,
                    correct=tuple(correct),
                )
                recorder.add(subject.name, subject.digest, reference, found)
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.measured = [one.name for one in subjects if one.name not in outcome.failed]
    return outcome


def mean_corrupted_accuracy(found: Sequence[RobustnessMeasurement]) -> float | None:
    """The mean over all corruptions and severities, 0–1; None where nothing was measured."""
    shares = [correct / one.images for one in found for correct in one.correct]
    return sum(shares) / len(shares) if shares else None


def _correct(executor: Executor, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> int:
    workers = untimed_workers(executor)
    return int((predict_classes(executor, images, workers=workers) == labels).sum())
