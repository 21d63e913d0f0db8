"""What a person sees: progress on standard error, results on standard output."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from bench.measure.progress import Progress
from bench.rows.files import MachineResults, newest


def set_up_logging(errors: Console) -> None:
    """Warnings, on standard error, in the way of no progress bar."""
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])


@contextlib.contextmanager
def progress_bar(errors: Console) -> Iterator[Progress]:
    """One bar that follows whatever is being measured."""
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    ) as bars:
        task = bars.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show


def results_table(found: Sequence[MachineResults]) -> Table:
    """The rows that count, one line for each machine, model and kind."""
    table = Table("Machine", "Model", "Digest", "Kind", "Rows", "Newest (UTC)")
    for machine in found:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for row in newest(machine.rows):
            groups.setdefault((row.model, row.digest, row.kind), []).append(row.created)
        for (model, digest, kind), created in sorted(groups.items()):
            when = max(created)[:19].replace("T", " ")
            table.add_row(machine.name, model, digest[:8] or "–", kind, str(len(created)), when)
    return table
