"""Measure all servers in rounds, with a row for each server and round (``bench peers``).

All rows of one session share its run id. A resumed session skips the measurements that already
have a row.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from typing import Final

import numpy as np

from bench.load.bodies import encode_jpeg
from bench.measure.progress import Progress, silent
from bench.measure.setup import Open
from bench.measure.survey import RunOutcome, Survey, in_turns
from bench.measure.survey import Subject as Surveyed
from bench.peers.catalogue import CATALOGUE, Peer
from bench.peers.environments import programs_of
from bench.peers.measuring import PeerPlan, Subject, measure_peer, title_of
from bench.rows.files import Recorder, published
from bench.rows.kinds.service import PeerFailureMeasurement, PeerMeasurement
from bench.rows.row import DatasetReference, Row
from bench.serving.cores import Cores, choose_cores
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.images import decode_image
from cifar10.store import ONNX_FILE, ModelStore
from cifar10.suggestions import did_you_mean

IMAGES: Final = 500
"""Number of different images posted."""

Measure = Callable[[Peer, Subject, PeerPlan, int, Cores], PeerMeasurement]
Done = AbstractSet[tuple[str, int]]
"""Pairs (peer's name, round) that a session has measured."""


def choose_peers(names: Sequence[str] | None) -> list[Peer]:
    """Return the named peers in the catalogue's order, or all.

    Raises:
        BenchError: a peer is unknown.
    """
    if not names:
        return list(CATALOGUE)
    known = {peer.name for peer in CATALOGUE}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            message = f"there is no peer {name!r}; there are {', '.join(sorted(known))}.{near}"
            raise BenchError(message)
    return [peer for peer in CATALOGUE if peer.name in names]


def make_subject(
    store: ModelStore, name: str, dataset: Dataset, plan: PeerPlan, open_model: Open
) -> Subject:
    """Return the model and images, with the probabilities computed in this process."""
    stored = store.load(name)
    jpegs = [encode_jpeg(image) for image in dataset.test.images[:IMAGES]]
    first = np.stack([decode_image(jpeg) for jpeg in jpegs[: plan.checked_images]])
    expected = open_model(stored).predict(first)
    return Subject(name, store.root, store.folder(name) / ONNX_FILE, jpegs, expected)


def measure_rounds(
    peers: Sequence[Peer],
    subject: Subject,
    digest: str,
    dataset: DatasetReference,
    recorder: Recorder,
    plan: PeerPlan,
    *,
    done: Done = frozenset(),
    measure: Measure = measure_peer,
    prepare: Callable[[str], object] = programs_of,
    cores: Cores | None = None,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure every peer in every round, interleaved, except the finished measurements.

    A peer is skipped in later rounds if its environment cannot be built or it fails before its
    first measurement.

    Args:
        peers: peers in the order of the odd rounds.
        measure: measures one peer once; tests replace it.
        prepare: builds a peer's environment, by its folder, before the first round.
        cores: the CPUs of server and load generator (default: the first and the last).

    Raises:
        BenchError: a row could not be written, or the machine has fewer than two CPUs.
    """
    cores = cores or choose_cores()
    with Survey(recorder) as survey:

        def attempt(peer: Peer) -> AbstractContextManager[Surveyed]:
            return survey.attempt(
                peer.name,
                "peers",
                model=subject.name,
                digest=digest,
                explain=lambda error: PeerFailureMeasurement(
                    peer.name, title_of(peer), type(error).__name__, published(error)
                ),
            )

        for position, peer in enumerate(peers):
            progress(f"environment of {peer.name}", position, len(peers))
            if peer.folder is not None:
                with attempt(peer):
                    prepare(peer.folder)
        outcome = survey.outcome
        hopeless = set(outcome.failed)
        for step, (number, peer) in enumerate(in_turns(peers, plan.rounds)):
            if peer.name in hopeless or (peer.name, number) in done:
                continue
            progress(f"round {number}: {peer.name}", step, plan.rounds * len(peers))
            with attempt(peer) as measured:
                measured.add(measure(peer, subject, plan, number, cores), dataset)
            if peer.name in outcome.failed and peer.name not in outcome.measured:
                hopeless.add(peer.name)
    return survey.outcome


def done_in(rows: Sequence[Row]) -> set[tuple[str, int]]:
    """Return (peer's name, round) for each measurement among a session's rows."""
    return {
        (row.measurement.name, row.measurement.round)
        for row in rows
        if isinstance(row.measurement, PeerMeasurement)
    }
