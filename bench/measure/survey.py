"""Main loop of every measuring command: open, measure, record the figures or the failure.

A survey visits subjects: models, or the trials, servers or settings used for one model. An error in
one subject becomes a failure row, and the survey continues with the others. Rows are written as
soon as they are known. Ctrl-C ends the survey without an error and keeps the recorded rows.

    with Survey(recorder) as survey:
        for name in names:
            with survey.attempt(name, "bulk") as subject:
                stored = subject.load(store)
                subject.add(measure(stored))
    return survey.outcome

A failure to write a row (a full disk) belongs to no subject and ends the survey.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from bench.rows.files import Recorder
from bench.rows.row import DatasetReference, Measurement
from cifar10.dataset import Dataset
from cifar10.errors import BenchError, Cifar10Error
from cifar10.store import ModelStore, StoredModel

T = TypeVar("T")


@dataclass
class RunOutcome:
    """Result of a survey."""

    measured: list[str] = field(default_factory=list)
    """Subjects with at least one row of figures, in the order of their first row."""
    failed: dict[str, str] = field(default_factory=dict)
    """Stage and reason of each failed subject's last failure.

    A partly measured subject is in both collections.
    """
    interrupted: bool = False
    """Whether Ctrl-C ended the survey."""


Explain = Callable[[Exception], Measurement]
"""Function that makes the failure row of an exception, instead of the default one."""


class Subject:
    """A thing that a survey measures. Its rows are recorded under ``model`` and ``digest``.

    Attributes:
        title: name in the outcome.
        model: name of the model that its rows are about.
        digest: SHA-256 of that model's file; empty until known.
    """

    def __init__(self, survey: "Survey", title: str, model: str, digest: str) -> None:
        self.title, self.model, self.digest = title, model, digest
        self._survey = survey

    def load(self, store: ModelStore) -> StoredModel:
        """Read the model, and keep its digest for the rows.

        Raises:
            Cifar10Error: the model does not exist, or its file or card is damaged.
        """
        stored = store.load(self.model)
        self.digest = stored.card.sha256
        return stored

    def add(self, measurement: Measurement, dataset: DatasetReference | None = None) -> None:
        """Write a row with figures.

        Raises:
            BenchError: the row could not be written; this ends the survey.
        """
        with self._survey.writing() as recorder:
            recorder.add(self.model, self.digest, dataset, measurement)
        measured = self._survey.outcome.measured
        if self.title not in measured:
            measured.append(self.title)

    def fail(self, stage: str, error: Exception, explain: Explain | None = None) -> None:
        """Write a failure row with the reason.

        Raises:
            BenchError: the row could not be written; this ends the survey.
        """
        with self._survey.writing() as recorder:
            if explain is None:
                recorder.add_failure(self.model, self.digest, stage, error)
            else:
                recorder.add(self.model, self.digest, None, explain(error))
        known = isinstance(error, Cifar10Error)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self.blame(f"failed at {stage}: {reason}")

    def blame(self, reason: str) -> None:
        """Count the subject as failed without a failure row; its figures' row has the reason."""
        self._survey.outcome.failed[self.title] = reason


class Survey:
    """A measurement of several subjects; a context manager that handles Ctrl-C.

    Attributes:
        outcome: subjects measured and failed so far.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.outcome = RunOutcome()
        self._recorder = recorder
        self._subjects: dict[str, Subject] = {}
        self._unwritten: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.outcome.interrupted |= isinstance(error, KeyboardInterrupt)
        return isinstance(error, KeyboardInterrupt)

    @contextlib.contextmanager
    def attempt(
        self,
        title: str,
        stage: str,
        *,
        model: str | None = None,
        digest: str = "",
        explain: Explain | None = None,
    ) -> Iterator[Subject]:
        """Yield a subject; an exception inside the block becomes its failure row.

        Args:
            title: name of the subject. Later attempts reuse its model and digest.
            stage: name of the measurement, for the failure row.
            model: name of the model that its rows are about; None: the subject is a model.
            digest: SHA-256 of that model's file, if known already.
            explain: makes the failure row (default: the ordinary one).

        Raises:
            BenchError: a row could not be written.
        """
        known = self._subjects.get(title) or Subject(self, title, model or title, digest)
        subject = self._subjects[title] = known
        try:
            yield subject
        except Exception as error:  # any exception becomes that subject's failure row
            if error is self._unwritten:
                raise
            subject.fail(stage, error, explain)

    def unfailed(self, titles: Iterable[str]) -> list[str]:
        """Return the named subjects that have not failed so far."""
        return [title for title in titles if title not in self.outcome.failed]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Recorder]:
        """Yield the recorder, marking write errors so that no subject is blamed for them."""
        try:
            yield self._recorder
        except BenchError as error:
            self._unwritten = error
            raise


def in_turns(items: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Yield (round, item) for every item in every round from 1; every second round is reversed.

    Interleaving makes a slowdown of the machine affect all items. Reversing keeps an item from
    always following the same neighbour.
    """
    for number in range(1, rounds + 1):
        for item in items if number % 2 else reversed(items):
            yield number, item


def merged(outcomes: Sequence[RunOutcome]) -> RunOutcome:
    """Merge the outcomes of several surveys."""
    whole = RunOutcome()
    for outcome in outcomes:
        whole.failed |= outcome.failed
        whole.interrupted |= outcome.interrupted
    whole.measured = list(dict.fromkeys(name for one in outcomes for name in one.measured))
    return whole


def reference_to(dataset: Dataset) -> DatasetReference:
    """Return the reference to the data set of a row."""
    record = dataset.record
    return DatasetReference(record.variant, record.fingerprint, record.name)
