"""The loop of every measuring command: open, measure, record the figure or why there is none.

A survey visits subjects: models, or the trials, servers or settings that one model is measured
with. What goes wrong with one becomes a failure row and the others go on. Rows are written as soon
as they are known. Ctrl-C ends the survey quietly: what was recorded stays.

    with Survey(recorder) as survey:
        for name in names:
            with survey.attempt(name, "bulk") as subject:
                stored = subject.load(store)
                subject.add(measure(stored))
    return survey.outcome

A row that cannot be written (a full disk) is nobody's measurement: that error ends the survey.
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
    """Subjects that left at least one row with figures, in the order of the first."""
    failed: dict[str, str] = field(default_factory=dict)
    """Subject → what failed and why; the last reason where there are several. A subject that was
    measured in part is in both."""
    interrupted: bool = False
    """Ctrl-C ended it."""


Explain = Callable[[Exception], Measurement]
"""Makes the failure row of an exception, where it is not an ordinary one."""


class Subject:
    """One thing that a survey visits. Its rows go under ``model`` and ``digest``.

    Attributes:
        title: its name in the outcome.
        model: the model that its rows are about.
        digest: SHA-256 of that model's file; empty until known.
    """

    def __init__(self, survey: "Survey", title: str, model: str, digest: str) -> None:
        self.title, self.model, self.digest = title, model, digest
        self._survey = survey

    def load(self, store: ModelStore) -> StoredModel:
        """Read the model, and keep its digest for the rows.

        Raises:
            Cifar10Error: there is no such model, or its file or card is damaged.
        """
        stored = store.load(self.model)
        self.digest = stored.card.sha256
        return stored

    def add(self, measurement: Measurement, dataset: DatasetReference | None = None) -> None:
        """Write a row with figures.

        Raises:
            BenchError: it could not be written; this ends the survey.
        """
        with self._survey.writing() as recorder:
            recorder.add(self.model, self.digest, dataset, measurement)
        measured = self._survey.outcome.measured
        if self.title not in measured:
            measured.append(self.title)

    def fail(self, stage: str, error: Exception, explain: Explain | None = None) -> None:
        """Write the row that says why there are no figures.

        Raises:
            BenchError: it could not be written; this ends the survey.
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
        """Count the subject as failed, with no failure row: the row with figures says why."""
        self._survey.outcome.failed[self.title] = reason


class Survey:
    """A run over several subjects; a context manager that ends quietly on Ctrl-C.

    Args:
        recorder: gets the rows.

    Attributes:
        outcome: what was measured and what failed so far.
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
        """Do something with a subject; an exception becomes its failure row.

        Args:
            title: the subject's name. At a later attempt its model and digest are still known.
            stage: what is attempted, for the failure row.
            model: the model that its rows are about; None: the subject is a model.
            digest: of that model's file, where it is known already.
            explain: makes the failure row, where it is not an ordinary one.

        Raises:
            BenchError: a row could not be written.
        """
        known = self._subjects.get(title) or Subject(self, title, model or title, digest)
        subject = self._subjects[title] = known
        try:
            yield subject
        except Exception as error:  # any reason is that subject's failure row
            if error is self._unwritten:
                raise
            subject.fail(stage, error, explain)

    def unfailed(self, titles: Iterable[str]) -> list[str]:
        """Those of the subjects named that have not failed so far."""
        return [title for title in titles if title not in self.outcome.failed]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Recorder]:
        """The recorder; an error while a row is written is told from the subjects' own."""
        try:
            yield self._recorder
        except BenchError as error:
            self._unwritten = error
            raise


def in_turns(items: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """(round, item) for every item in every round, from round 1; every second round backwards.

    In turns, so that a machine that becomes slower is slower for all of them; backwards, so that no
    item always follows the same neighbour.
    """
    for number in range(1, rounds + 1):
        for item in items if number % 2 else reversed(items):
            yield number, item


def merged(outcomes: Sequence[RunOutcome]) -> RunOutcome:
    """Several surveys' outcomes as one."""
    whole = RunOutcome()
    for outcome in outcomes:
        whole.failed |= outcome.failed
        whole.interrupted |= outcome.interrupted
    whole.measured = list(dict.fromkeys(name for one in outcomes for name in one.measured))
    return whole


def reference_to(dataset: Dataset) -> DatasetReference:
    """The data set that a row is about."""
    return DatasetReference(dataset.record.variant, dataset.record.fingerprint)
