"""``REPORT.md``, ``report.html``, each machine's ``table.csv``, the README's table, and
``efficiency.json`` for the server's page: from rows, nothing else.

The same rows always give the same text, so ``--check`` can tell whether what is committed is what
was measured.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.report import page as html_report
from bench.report.efficiency import (
    LEGEND,
    efficiency_csv,
    efficiency_records,
    efficiency_table,
    gpu_line,
)
from bench.report.markdown_html import to_html
from bench.report.plots import draw as plots
from bench.report.sections.evidence import budgets
from bench.report.sections.index import SECTIONS, machine_line
from bench.report.sections.peers import readme_peers
from bench.report.study.sections import study_table
from bench.report.verdict import verdict
from bench.rows.files import MachineResults
from bench.rows.selection import ModelResult, newest, select
from cifar10.environment import EFFICIENCY_FILE
from cifar10.errors import BenchError
from cifar10.store import write_atomic

REPORT_FILE: Final = "REPORT.md"
PAGE_FILE: Final = "report.html"
CSV_FILE: Final = "table.csv"
README_FILE: Final = "README.md"
TABLE_BEGIN: Final = "<!-- efficiency-table:begin -->"
TABLE_END: Final = "<!-- efficiency-table:end -->"
PEERS_BEGIN: Final = "<!-- peers:begin -->"
PEERS_END: Final = "<!-- peers:end -->"
"""Where a README that has them gets the comparison with other servers."""

_MADE_BY: Final = "<!-- Made by `cifar10 report` from results/: do not edit. -->"


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
    """Select what is shown of each machine: first the one on which most models were measured, of
    equals the one measured last, so that the first screen is the best answer there is.

    Raises:
        BenchError: there is nothing to report.
    """
    reports = [
        MachineReport(machine, tuple(select(machine.rows)), results / machine.name / "plots")
        for machine in found
        if machine.rows
    ]
    if not reports:
        message = f"there are no rows in {results}. Measure first: cifar10 bench run"
        raise BenchError(message)
    reports.sort(
        key=lambda report: (len(report.models), report.results.rows[-1].created), reverse=True
    )
    return reports


def write_report(reports: Sequence[MachineReport], output: Path) -> list[Path]:
    """Draw the pictures; write ``REPORT.md``, ``report.html``, each machine's ``table.csv``, the
    ``efficiency.json`` beside them, and the table in ``README.md`` where there is one.

    Returns:
        The files written.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    texts = _texts(reports, output)
    written = []
    for report in reports:
        written += plots.draw_all(report.models, report.plots, report.digest)
    texts[output / PAGE_FILE] = render_html(reports)
    for path, text in texts.items():
        write_atomic(path, text)
        written.append(path)
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
    page = output / PAGE_FILE
    wanted = _texts(reports, output) | {page: render_html(reports, with_pictures=False)}
    for path, text in wanted.items():
        found = path.read_text(encoding="utf-8") if path.is_file() else None
        if found is not None and path == page:
            found = html_report.without_figures(found)
        if found != text:
            stale.append(path)
    return stale


def render_html(reports: Sequence[MachineReport], *, with_pictures: bool = True) -> str:
    """The whole of ``report.html``; without its pictures, what ``--check`` compares."""
    parts = []
    for report in reports:
        drawn = {path.stem: "" for path in plots.expected_pictures(report.models, report.plots)}
        if with_pictures:
            drawn = plots.draw_svgs(report.models, report.results.name)
        figures = {name: html_report.figure(picture) for name, picture in drawn.items()}
        if not with_pictures:
            figures = dict.fromkeys(drawn, html_report.without_figures(html_report.figure("")))
        names = {name: f"![{name}]({name})" for name in figures}
        parts.append(html_report.answer(report.models, machine_line(report.results)))
        said = "\n".join(f"- {sentence}" for sentence in verdict(report.models))
        parts.append(html_report.section("In detail", said, figures))
        table = html_report.sortable_table(report.models, report.results.machine.cpu)
        notes = to_html(f"{gpu_line(report.models)}\n\n{LEGEND}")
        parts.append(f"<section><h2>The efficiency table</h2>\n{table}\n{notes}</section>")
        parts += [
            html_report.section(title, render(report.results, report.models, names), figures)
            for title, render in SECTIONS
        ]
    digest = html_report.page_digest([report.digest for report in reports])
    body = "\n".join(part for part in parts if part)
    return html_report.render_page("CIFAR-10 classifiers: which one to ship", body, digest)


def _texts(reports: Sequence[MachineReport], output: Path) -> dict[Path, str]:
    """Every file that is text alone, in the order written."""
    texts = {report.plots.parent / CSV_FILE: efficiency_csv(report.models) for report in reports}
    texts[reports[0].plots.parent.parent / EFFICIENCY_FILE] = render_json(reports)
    texts[output / REPORT_FILE] = render_report(reports, output)
    readme = _readme_with_table(reports, output)
    if readme is not None:
        texts[output / README_FILE] = readme
    return texts


def render_json(reports: Sequence[MachineReport]) -> str:
    """The whole of ``efficiency.json``: the efficiency table of every machine."""
    machines = [
        {
            "name": report.results.name,
            "conditions": machine_line(report.results),
            "models": efficiency_records(report.models),
        }
        for report in reports
    ]
    return json.dumps({"machines": machines}, indent=1, ensure_ascii=False) + "\n"


def render_report(reports: Sequence[MachineReport], output: Path) -> str:
    """The whole of ``REPORT.md``; links to pictures are relative to ``output``."""
    parts = [
        _MADE_BY,
        "# Report",
        f"As a page, with a table that sorts: [{PAGE_FILE}]({PAGE_FILE}).",
    ]
    for report in reports:
        heading = "##"
        if len(reports) > 1:
            parts.append(f"## {report.results.name}")
            heading = "###"
        parts.append("\n".join(f"- {sentence}" for sentence in verdict(report.models)))
        parts.append(budgets(report.results, report.models, {}))
        parts.append(machine_line(report.results))
        parts += [f"{heading} The efficiency table", efficiency_table(report.models)]
        parts += [gpu_line(report.models), LEGEND]
        pictures = {
            path.stem: f"![{path.stem.replace('_', ' ')}]({_relative(path, output)})"
            for path in plots.expected_pictures(report.models, report.plots)
        }
        for title, render in SECTIONS:
            body = render(report.results, report.models, pictures)
            if body:
                parts += [f"{heading} {title}", body]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


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
    if TABLE_BEGIN not in text or TABLE_END not in text:
        message = f"{path} has no place for the table: put {TABLE_BEGIN} and {TABLE_END} in it"
        raise BenchError(message)
    text = _between(text, TABLE_BEGIN, TABLE_END, render_readme_table(reports))
    return _between(text, PEERS_BEGIN, PEERS_END, render_readme_peers(reports))


def render_readme_peers(reports: Sequence[MachineReport]) -> str:
    """What stands between the README's markers for the comparison with other servers."""
    parts = []
    for report in reports:
        compared = readme_peers(report.results)
        if compared:
            parts += [machine_line(report.results), compared]
    return "\n\n".join(parts) or "Not measured yet: `cifar10 bench peers`."


def _between(text: str, begin: str, end: str, content: str) -> str:
    """``text`` with the part between two markers replaced; as it is where they are not in it."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        return text
    return f"{before}{begin}\n{content}\n{end}{after}"


def _relative(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path.resolve(), output.resolve())).as_posix()
