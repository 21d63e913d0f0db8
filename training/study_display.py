"""Progress and closing table of ``cifar10 study``. Imports Keras."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from cifar10.dataset import Dataset
from cifar10.store import ModelStore
from training.history import EpochRow
from training.networks.backbones import WeightsChoice
from training.progress import progress_bar
from training.recipes.schema import Phase, Recipe
from training.study import Planned, StudyObserver, StudyRow, plan, run_study


def study(
    console: Console,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    dataset: Dataset,
    models: Path,
    *,
    smoke: bool,
    weights: WeightsChoice,
    run: Callable[..., list[StudyRow]] = run_study,
) -> list[StudyRow]:
    """Train ``recipes`` with each of ``seeds``, print a table and return its rows.

    ``run`` trains them, as :func:`training.study.run_study` does.
    """
    planned = plan(recipes, seeds, smoke=smoke)
    with progress_bar(console) as bar:
        rows = run(
            planned,
            dataset,
            ModelStore(models),
            smoke=smoke,
            weights=weights,
            observer=_Drawing(console, bar, len(planned)),
        )
    console.print(summary(rows))
    failed = [row.name for row in rows if row.error is not None]
    if failed:
        console.print(f"{len(failed)} of {len(rows)} failed: {', '.join(failed)}", highlight=False)
    else:
        console.print("next: cifar10 export --all", highlight=False)
    return rows


def summary(rows: Sequence[StudyRow]) -> Table:
    """Return a table with one line per model, with the reasons of failures."""
    table = Table("model", "parameters", "train", "validation", "test", "gap", "epochs", "seconds")
    for row in rows:
        table.add_row(row.name, *_cells(row), f"{row.seconds:.0f}")
    return table


def _cells(row: StudyRow) -> tuple[str, ...]:
    record = row.record
    if record is None:
        return ("—", f"failed: {row.error}", "—", "—", "—", "—")
    epochs = f"{record.training.epochs}{' (before)' if row.already_there else ''}"
    parameters = f"{record.parameters.total:,}"
    accuracy = record.accuracy
    if accuracy is None:
        return (parameters, "random weights: cost only", "—", "—", "—", epochs)
    return (
        parameters,
        f"{accuracy.train.accuracy:.2%}" if accuracy.train is not None else "—",
        f"{accuracy.validation.accuracy:.2%}",
        f"{accuracy.test.accuracy:.2%}",
        f"{100 * accuracy.overfitting_gap:.2f}" if accuracy.overfitting_gap is not None else "—",
        epochs,
    )


class _Drawing(StudyObserver):
    """Observer with two bars: models of the study, and steps of the current activity."""

    def __init__(self, console: Console, bar: Progress, count: int) -> None:
        self._console = console
        self._bar = bar
        self._models: TaskID = bar.add_task("study", total=count, note="")
        self._steps: TaskID = bar.add_task("starting", total=None, note="")

    def model_started(self, planned: Planned, number: int, count: int) -> None:
        self._bar.update(self._models, note=planned.name)
        self._bar.reset(self._steps, total=None, description="building", note="")

    def model_finished(self, row: StudyRow) -> None:
        self._bar.advance(self._models)
        done = "failed" if row.error is not None else "there" if row.already_there else "trained"
        accuracy = row.record.accuracy if row.record is not None else None
        shown = f"  test {accuracy.test.accuracy:.2%}" if accuracy is not None else ""
        self._console.print(
            f"{row.name}: {done} in {row.seconds:.0f} s{shown}", highlight=False, soft_wrap=True
        )
        if row.error is not None:
            self._console.print(f"  {row.error}", style="red", markup=False, soft_wrap=True)

    def resumed(self, history: Sequence[EpochRow]) -> None:
        self._console.print(f"  going on after epoch {history[-1].epoch}", highlight=False)

    def features_extracted(self, done: int, total: int) -> None:
        self._bar.update(
            self._steps, total=total, completed=done, description="extracting features"
        )

    def teacher_asked(self, done: int, total: int) -> None:
        self._bar.update(self._steps, total=total, completed=done, description="asking the teacher")

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        self._bar.reset(self._steps, total=steps, description=f"epoch {epoch} ({phase.name})")

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        self._bar.update(self._steps, completed=step, note=f"loss {loss:.3f}")

    def evaluating(self, split: str) -> None:
        self._bar.reset(self._steps, total=None, description=f"evaluating on {split}", note="")
