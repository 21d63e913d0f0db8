"""Terminal display of a training: a bar for the epoch, and a line for each finished one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from training.history import EpochRow
from training.observer import Observer
from training.recipes.schema import Phase


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """Return a bar that disappears when done, and is not drawn if output is not a terminal."""
    # In a file or a pipe, a bar would be thousands of lines.
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


@contextmanager
def decoding_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for decoding the data set; it appears with the first decoded image."""
    with progress_bar(console) as bar:
        task: TaskID | None = None

        def advance(done: int, expected: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task("decoding images", total=expected, note="")
            bar.update(task, completed=done, total=expected)

        yield advance


@contextmanager
def training_progress(
    console: Console, told: Sequence[Callable[[EpochRow], None]] = ()
) -> Iterator[Observer]:
    """Return an observer that displays the progress and passes each epoch on to ``told``; of a
    resumed training, the earlier ones first."""
    with progress_bar(console) as bar:
        yield _Drawing(console, bar, told)


class _Drawing(Observer):
    def __init__(
        self, console: Console, bar: Progress, told: Sequence[Callable[[EpochRow], None]]
    ) -> None:
        self._told = told
        self._console = console
        self._bar = bar
        self._task = bar.add_task("starting", total=None, note="")

    def resumed(self, history: Sequence[EpochRow]) -> None:
        self._console.print(f"going on after epoch {history[-1].epoch}")
        for row in history:
            self._tell(row)

    def features_extracted(self, done: int, total: int) -> None:
        self._bar.update(
            self._task, total=total, completed=done, description="extracting features", note=""
        )

    def teacher_asked(self, done: int, total: int) -> None:
        self._bar.update(
            self._task, total=total, completed=done, description="asking the teacher", note=""
        )

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        self._bar.reset(self._task, total=steps, description=f"epoch {epoch} ({phase.name})")

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        note = f"loss {loss:.3f}, accuracy {accuracy:.1%}"
        self._bar.update(self._task, completed=step, note=note)

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        self._console.print(
            f"epoch {row.epoch:>3}  loss {row.loss:.4f}  accuracy {row.accuracy:.2%}  "
            f"validation loss {row.validation_loss:.4f}  "
            f"validation accuracy {row.validation_accuracy:.2%}  {row.seconds:.1f} s"
            f"{'  best' if best else ''}",
            highlight=False,
            soft_wrap=True,
        )

        self._tell(row)

    def _tell(self, row: EpochRow) -> None:
        for tell in self._told:
            tell(row)

    def evaluating(self, split: str) -> None:
        self._bar.reset(self._task, total=None, description=f"evaluating on {split}", note="")
