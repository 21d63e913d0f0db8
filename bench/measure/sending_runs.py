"""The part of ``python -m bench robustness`` that sends images as users do.

The copies are made once for all models, one way at a time; a row is written as soon as a model has
seen one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.corruptions import SEED
from bench.measure.damage import DEFAULT_IMAGES, choose_images
from bench.measure.in_process import Open, RunOutcome
from bench.measure.latency import Executor
from bench.measure.progress import Progress, silent
from bench.measure.sendings import SENDINGS, Sending, sent
from bench.rows.files import Recorder
from bench.rows.kinds.sending import SendingMeasurement
from bench.rows.machine import usable_cores
from bench.rows.paired import pack_hits
from bench.serving.target import reference_to
from bench.session.plan import has_random_weights
from cifar10.dataset import Dataset, Split
from cifar10.store import ModelStore

STAGE: Final = "sending"


@dataclass(frozen=True)
class _Subject:
    name: str
    digest: str
    executor: Executor
    clean_hits: NDArray[np.bool_]


def measure_sendings(
    store: ModelStore,
    names: Sequence[str],
    dataset: Dataset,
    recorder: Recorder,
    *,
    open_model: Open,
    images: int = DEFAULT_IMAGES,
    seed: int = SEED,
    sendings: Sequence[Sending] = SENDINGS,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure the models named on test images as users send them; record everything.

    Models with random weights have no accuracy and are passed over. The images are those that
    :func:`bench.measure.damage.measure_robustness` chooses.

    Raises:
        BenchError: a row could not be written.
    """
    outcome = RunOutcome()
    chosen = choose_images(dataset.test, images, seed)
    subjects: list[_Subject] = []

    def fail(name: str, digest: str, error: BaseException) -> None:
        recorder.add_failure(name, digest, STAGE, error)
        outcome.failed[name] = f"failed at {STAGE}: {type(error).__name__}: {error}"

    try:
        for name in names:
            digest = ""
            try:
                stored = store.load(name)
                digest = stored.card.sha256
                if has_random_weights(stored.card):
                    continue
                executor = open_model(stored)
                clean = _hits(executor, chosen)
            except Exception as error:  # any reason is that model's failure row
                fail(name, digest, error)
                continue
            subjects.append(_Subject(name, digest, executor, clean))
        for position, sending in enumerate(sendings if subjects else ()):
            progress(f"as sent: {sending.name}", position, len(sendings))
            copies = Split(sent(sending, chosen.images, seed, usable_cores()), chosen.labels)
            for subject in subjects:
                if subject.name in outcome.failed:
                    continue
                try:
                    hits = _hits(subject.executor, copies)
                except Exception as error:  # as above
                    fail(subject.name, subject.digest, error)
                    continue
                found = SendingMeasurement(
                    provider=subject.executor.provider,
                    way=sending.name,
                    images=len(chosen.labels),
                    seed=seed,
                    clean_hits=pack_hits(subject.clean_hits),
                    hits=pack_hits(hits),
                )
                recorder.add(subject.name, subject.digest, reference_to(dataset), found)
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.measured = [one.name for one in subjects if one.name not in outcome.failed]
    return outcome


def _hits(executor: Executor, split: Split) -> NDArray[np.bool_]:
    workers = untimed_workers(executor)
    right: NDArray[np.bool_] = (
        predict_classes(executor, split.images, workers=workers) == split.labels
    )
    return right
