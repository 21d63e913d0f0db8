"""Progress, summary and exit code of a bench command."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bench.commands.figures import measured_now, other_lines, record, result_table
from bench.measure.progress import Progress
from bench.measure.survey import RunOutcome
from bench.rows.files import Recorder, read_results
from bench.rows.machine import read_machine
from bench.rows.row import Row
from bench.session.resume import Session, new_session, newest_session
from cifar10.commands.command import FAILED, INTERRUPTED, OK
from cifar10.commands.terminal import errors, print_json, print_table, print_text


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar, on a terminal only, for any measurement."""
    console = errors()
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show


def conclude(outcome: RunOutcome, recorder: Recorder, *, as_json: bool) -> int:
    """Print the results, their changes since the previous run, and the failures.

    Returns:
        The exit code.
    """
    found, others = [], []
    if outcome.measured:
        rows = rows_here(recorder.folder.parent)
        found = measured_now(rows, recorder.run_id)
        others = other_lines(rows, recorder.run_id)
    if as_json:
        results = [
            {"now": record(now), "before": record(before) if before else None}
            for now, before in found
        ]
        print_json({**asdict(outcome), "run": recorder.run_id, "results": results})
    header, lines = result_table(found)
    if len(header) > 1 and not as_json:
        print_table(header, lines, right=header[1:])
    for line in [] if as_json else others:
        print_text(line)
    for model, reason in outcome.failed.items():
        say(f"[red]{escape(model)}[/] {escape(reason)}")
    if outcome.measured:
        say(f"measured: {', '.join(outcome.measured)}")
    if outcome.interrupted:
        say("interrupted: the rows measured so far are kept")
        return INTERRUPTED
    return FAILED if outcome.failed else OK


def rows_here(results: Path) -> list[Row]:
    """Return the rows of this machine."""
    name = read_machine().name
    return [row for here in read_results(results) if here.name == name for row in here.rows]


def session_for(
    command: str, results: Path, *, quick: bool, resume: bool, digest: str | None = None
) -> Session:
    """Return a new session, or the one to resume (with rows of the file ``digest``), and print its
    id."""
    session = new_session(command)
    if resume:
        session = newest_session(command, rows_here(results), quick=quick, digest=digest)
    say(f"session {session.run_id}; to continue it after Ctrl-C, add --resume")
    return session


def say(line: str) -> None:
    """Print one line to standard error."""
    errors().print(line, highlight=False, soft_wrap=True)
