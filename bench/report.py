"""``REPORT.md`` and the README's table, rendered from rows and nothing else.

The same rows always give the same text, so ``--check`` can tell whether what is committed is what
was measured.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import plots
from bench.report_sections import SECTIONS, machine_line
from bench.results import MachineResults, newest
from bench.selection import ModelResult, select
from bench.table import LEGEND, efficiency_table, study_table
from bench.verdict import verdict
from cifar10.errors import BenchError
from cifar10.store import write_atomic

REPORT_FILE: Final = "REPORT.md"
README_FILE: Final = "README.md"
TABLE_BEGIN: Final = "<!-- efficiency-table:begin -->"
TABLE_END: Final = "<!-- efficiency-table:end -->"

_MADE_BY: Final = "<!-- Made by `python -m bench report` from results/: do not edit. -->"


@dataclass(frozen=True)
class MachineReport:
    """What is to be shown of one machine."""

    results: MachineResults
    models: tuple[ModelResult, ...]
    plots: Path
    """The folder of its pictures."""

    @property
    def digest(self) -> str:
        """Of the rows that count: changes when any of them does."""
        named = [(*row.identity, row.run_id, row.created) for row in newest(self.results.rows)]
        return hashlib.sha256(repr(sorted(named)).encode()).hexdigest()[:16]


def prepare(found: Sequence[MachineResults], results: Path) -> list[MachineReport]:
    """Select what is shown of each machine.

    Raises:
        BenchError: there is nothing to report.
    """
    reports = [
        MachineReport(machine, tuple(select(machine.rows)), results / machine.name / "plots")
        for machine in found
        if machine.rows
    ]
    if not reports:
        message = f"there are no rows in {results}. Measure first: python -m bench run"
        raise BenchError(message)
    return reports


def write_report(reports: Sequence[MachineReport], output: Path) -> list[Path]:
    """Draw the pictures, write ``REPORT.md``, and the table in ``README.md`` where there is one.

    Returns:
        The files written.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    readme = _readme_with_table(reports, output)
    written = []
    for report in reports:
        written += plots.draw_all(report.models, report.plots, report.digest)
    write_atomic(output / REPORT_FILE, render_report(reports, output))
    written.append(output / REPORT_FILE)
    if readme is not None:
        write_atomic(output / README_FILE, readme)
        written.append(output / README_FILE)
    return written


def stale_files(reports: Sequence[MachineReport], output: Path) -> list[Path]:
    """The files that :func:`write_report` would change.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    stale = [
        path
        for report in reports
        for path in plots.expected_pictures(report.models, report.plots)
        if plots.is_stale(path, report.digest)
    ]
    wanted = {output / REPORT_FILE: render_report(reports, output)}
    readme = _readme_with_table(reports, output)
    if readme is not None:
        wanted[output / README_FILE] = readme
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    return stale


def render_report(reports: Sequence[MachineReport], output: Path) -> str:
    """The whole of ``REPORT.md``; links to pictures are relative to ``output``."""
    parts = [_MADE_BY, "# Report"]
    for report in reports:
        heading = "##"
        if len(reports) > 1:
            parts.append(f"## {report.results.name}")
            heading = "###"
        parts.append("\n".join(f"- {sentence}" for sentence in verdict(report.models)))
        parts.append(machine_line(report.results))
        parts += [f"{heading} The efficiency table", efficiency_table(report.models), LEGEND]
        pictures = {
            path.stem: f"![{path.stem.replace('_', ' ')}]({_relative(path, output)})"
            for path in plots.expected_pictures(report.models, report.plots)
        }
        for title, render in SECTIONS:
            body = render(report.results, report.models, pictures)
            if body:
                parts += [f"{heading} {title}", body]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render_readme_table(reports: Sequence[MachineReport]) -> str:
    """What stands between the README's markers."""
    parts = []
    for report in reports:
        parts += [machine_line(report.results), efficiency_table(report.models)]
    parts.append(LEGEND)
    parts.append(
        "The reference study's own figures (its test set served as its validation set) beside ours:"
    )
    parts.append(study_table([model for report in reports for model in report.models]))
    return "\n\n".join(part.strip() for part in parts)


def _readme_with_table(reports: Sequence[MachineReport], output: Path) -> str | None:
    """The README with the table put in; None where there is no README."""
    path = output / README_FILE
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not begin or not end:
        message = f"{path} has no place for the table: put {TABLE_BEGIN} and {TABLE_END} in it"
        raise BenchError(message)
    return f"{before}{begin}\n{render_readme_table(reports)}\n{end}{after}"


def _relative(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path.resolve(), output.resolve())).as_posix()
