"""``cifar10 bench peers``: interleaved rounds over all servers, a row for each server and round.

Interleaved, so that a machine that becomes slower is slower for all of them; every second round
runs backwards, so that nobody always follows the same neighbour. All rows of one session share its
run id, and a session can be gone on with: what has its row is not measured again.
"""

import uuid
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from bench.measure.in_process import Open
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome
from bench.peers.catalogue import CATALOGUE, Peer
from bench.peers.environments import PeerUnavailableError, programs_of
from bench.peers.measuring import PeerPlan, Subject, measure_peer, title_of
from bench.peers.questions import encode_jpeg
from bench.rows.files import DatasetReference, Recorder, Row, published
from bench.rows.kinds.peer import PeerFailureMeasurement, PeerMeasurement
from bench.serving.cores import Cores, choose_cores
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.images import decode_image
from cifar10.store import ONNX_FILE, ModelStore
from cifar10.suggestions import did_you_mean

SESSION_PREFIX: Final = "peers-"
"""How the run ids of sessions begin."""
IMAGES: Final = 500
"""Different pictures posted."""

Measure = Callable[[Peer, Subject, PeerPlan, int, Cores], PeerMeasurement]
Done = AbstractSet[tuple[str, int]]
"""(peer's name, round) of what a session already has."""


def choose_peers(names: Sequence[str] | None) -> list[Peer]:
    """Those named, in the catalogue's order, or all.

    Raises:
        BenchError: there is no such peer.
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
    """The model, and pictures with the answers that it gives in this process."""
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
    """Every peer in every round, but for what is done; rows are written as soon as they are known.

    Args:
        peers: in the order of the odd rounds.
        subject: model and pictures.
        digest: of the model's file.
        dataset: which pictures they are.
        recorder: gets the rows.
        plan: how long, and how many rounds.
        done: what is not measured again.
        measure: measures one peer once: tests give another.
        prepare: makes a peer's environment, by its folder, before the first round.
        cores: which CPU is whose (default: the first and the last).
        progress: told how far this is.

    Returns:
        The peers measured in at least one round, and why others could not be.

    Raises:
        BenchError: a row could not be written, or the machine has no two CPUs.
    """
    outcome = RunOutcome()
    cores = cores or choose_cores()
    hopeless: set[str] = set()

    def fail(peer: Peer, error: Exception) -> None:
        reason = PeerFailureMeasurement(
            peer.name, title_of(peer), type(error).__name__, published(error)
        )
        recorder.add(subject.name, digest, None, reason)
        outcome.failed[peer.name] = str(error)
        if peer.name not in outcome.measured or isinstance(error, PeerUnavailableError):
            hopeless.add(peer.name)

    try:
        for position, peer in enumerate(peers):
            progress(f"environment of {peer.name}", position, len(peers))
            try:
                if peer.folder is not None:
                    prepare(peer.folder)
            except BenchError as error:
                fail(peer, error)
        for round_number in range(1, plan.rounds + 1):
            ordered = peers if round_number % 2 else peers[::-1]
            for position, peer in enumerate(ordered):
                if peer.name in hopeless or (peer.name, round_number) in done:
                    continue
                step = (round_number - 1) * len(peers) + position
                progress(f"round {round_number}: {peer.name}", step, plan.rounds * len(peers))
                try:
                    found = measure(peer, subject, plan, round_number, cores)
                except Exception as error:  # any reason is that peer's failure row
                    fail(peer, error)
                    continue
                recorder.add(subject.name, digest, dataset, found)
                if peer.name not in outcome.measured:
                    outcome.measured.append(peer.name)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def new_comparison_id() -> str:
    """A run id that tells a comparison from other commands."""
    return f"{SESSION_PREFIX}{uuid.uuid4().hex[:8]}"


def session_of_file(rows: Sequence[Row], digest: str, *, quick: bool) -> str:
    """The run id of the newest session with this model's file among a machine's rows.

    Raises:
        BenchError: there is none to go on with.
    """
    sessions = [
        row.run_id
        for row in rows
        if row.run_id.startswith(SESSION_PREFIX) and row.quick == quick and row.digest == digest
    ]
    if not sessions:
        message = "there is no session to resume; start one: cifar10 bench peers"
        raise BenchError(message)
    return sessions[-1]


def done_in(rows: Sequence[Row], session: str) -> set[tuple[str, int]]:
    """What a session has."""
    return {
        (row.measurement.name, row.measurement.round)
        for row in rows
        if row.run_id == session and isinstance(row.measurement, PeerMeasurement)
    }
