"""``REPORT.md``, ``report.html``, each machine's ``table.csv``, the README's table, and
``efficiency.json`` for the server's page: from rows, nothing else.

The same rows always give the same text, so ``--check`` can tell whether what is committed is what
was measured. ``report.html`` and the pictures in it are built, not committed.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.report.efficiency import LEGEND, efficiency_records, efficiency_table, gpu_line
from bench.report.formats import REQUESTS_PER_S_SHARED
from bench.report.page import render_html
from bench.report.plots import draw as plots
from bench.report.recommend import budgets
from bench.report.sections import all_sections
from bench.report.sections.peers import readme_peers
from bench.report.shown import Shown
from bench.report.tables import Block, Table, to_markdown
from bench.report.verdict import verdict
from bench.rows.files import MachineResults
from bench.rows.selection import select
from cifar10.environment import EFFICIENCY_FILE
from cifar10.errors import BenchError, Cifar10Error
from cifar10.store import ModelStore, write_atomic

REPORT_FILE: Final = "REPORT.md"
PAGE_FILE: Final = "report.html"
CSV_FILE: Final = "table.csv"
README_FILE: Final = "README.md"
PEERS_FILE: Final = "docs/peers.md"
TABLE_BEGIN: Final = "<!-- efficiency-table:begin -->"
TABLE_END: Final = "<!-- efficiency-table:end -->"
PEERS_BEGIN: Final = "<!-- peers:begin -->"
PEERS_END: Final = "<!-- peers:end -->"
"""Where a README or ``docs/peers.md`` that has them gets the comparison with other servers."""

_MADE_BY: Final = "<!-- Made by `cifar10 report` from results/: do not edit. -->"


def released(models: Path) -> dict[str, str]:
    """Name → digest of the models in a store; a card that cannot be read is left out."""
    store = ModelStore(models)
    found = {}
    for name in store.names():
        try:
            found[name] = store.card(name).sha256
        except Cifar10Error:
            continue
    return found


def prepare(
    found: Sequence[MachineResults], results: Path, store: Mapping[str, str] | None = None
) -> list[Shown]:
    """Select what is shown of each machine: first the one on which most of the store's own files
    were measured, of equals the one measured last.

    Args:
        found: every machine's rows.
        results: the folder they are in.
        store: name → digest of the models that are released; without any, every model counts as
            released.

    Raises:
        BenchError: there is nothing to report.
    """
    reports = [
        Shown(machine, tuple(select(machine.rows, store or None)))
        for machine in found
        if machine.rows
    ]
    if not reports:
        message = f"there are no rows in {results}. Measure first: cifar10 bench run"
        raise BenchError(message)

    def rank(shown: Shown) -> tuple[int, str]:
        own = {model.model for model in shown.models if model.released}
        return len(own), shown.results.rows[-1].created

    return sorted(reports, key=rank, reverse=True)


def write_report(reports: Sequence[Shown], results: Path, output: Path) -> list[Path]:
    """Write ``REPORT.md`` with its few pictures, ``report.html`` with all of them, each machine's
    ``table.csv``, ``efficiency.json`` beside them, and the table in ``README.md`` where there is
    one.

    Returns:
        The files written.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    texts = _texts(reports, results, output)
    written = plots.draw_few(reports[0], _plots_folder(reports, results))
    texts[output / PAGE_FILE] = render_html(reports)
    for path, text in texts.items():
        write_atomic(path, text)
    return [*written, *texts]


def stale_files(reports: Sequence[Shown], results: Path, output: Path) -> list[Path]:
    """The committed files that :func:`write_report` would change.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    folder = _plots_folder(reports, results)
    stale = [
        path
        for path in plots.few_pictures(reports[0], folder)
        if plots.is_stale(path, reports[0].digest)
    ]
    for path, text in _texts(reports, results, output).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    return stale


def _plots_folder(reports: Sequence[Shown], results: Path) -> Path:
    return results / reports[0].results.name / "plots"


def _texts(reports: Sequence[Shown], results: Path, output: Path) -> dict[Path, str]:
    """Every committed file that is text, in the order written."""
    texts = {
        results / one.results.name / CSV_FILE: efficiency_table(one.models).csv() for one in reports
    }
    texts[results / EFFICIENCY_FILE] = render_json(reports)
    texts[output / REPORT_FILE] = render_report(reports, results, output)
    readme, peers = output / README_FILE, output / PEERS_FILE
    if readme.is_file():
        texts[readme] = _readme_with_table(reports, readme)
    if peers.is_file():
        text = peers.read_text(encoding="utf-8")
        texts[peers] = _between(text, PEERS_BEGIN, PEERS_END, render_readme_peers(reports))
    return texts


def render_json(reports: Sequence[Shown]) -> str:
    """The whole of ``efficiency.json``: the efficiency table of every machine."""
    machines = [
        {
            "name": shown.results.name,
            "conditions": shown.machine_line,
            "models": efficiency_records(shown.models),
        }
        for shown in reports
    ]
    return json.dumps({"machines": machines}, indent=1, ensure_ascii=False) + "\n"


def render_report(reports: Sequence[Shown], results: Path, output: Path) -> str:
    """The whole of ``REPORT.md``; links to pictures are relative to ``output``."""
    folder = Path(os.path.relpath(_plots_folder(reports, results).resolve(), output.resolve()))
    parts = [
        _MADE_BY,
        "# Report",
        f"As a page, with every picture and a table that sorts: `{PAGE_FILE}`, which "
        "`cifar10 report` builds.",
    ]
    for shown in reports:
        heading = "###" if len(reports) > 1 else "##"
        if len(reports) > 1:
            parts.append(f"## {shown.results.name}")
        pictures = {
            path.stem: f"![{path.stem.replace('_', ' ')}]({(folder / path.name).as_posix()})"
            for path in plots.few_pictures(shown, folder)
            if shown is reports[0]
        }
        opening: list[Block] = [
            "\n".join(f"- {sentence}" for sentence in verdict(shown.models)),
            *budgets(shown.models),
            shown.machine_line,
            f"{heading} The efficiency table",
            efficiency_table(shown.models),
            gpu_line(shown.models),
            LEGEND,
        ]
        parts.append(to_markdown(opening, pictures))
        for section in all_sections():
            body = to_markdown(section.blocks(shown), pictures)
            if body:
                parts += [f"{heading} {section.title}", body]
    return "\n\n".join(parts) + "\n"


_README_COLUMNS: Final = (
    "Model", "Variant", "Accuracy, % (95 % interval)", "Parameters", "MACs, M", "Size, MB",
    "Latency p50 / p99, ms", REQUESTS_PER_S_SHARED,
)  # fmt: skip


def render_readme_table(reports: Sequence[Shown]) -> str:
    """What stands between the README's markers: the released models on the first machine."""
    shown = reports[0]
    table = efficiency_table(shown.models)
    released_here = [entry for entry in table.rows if entry.result.released]
    short = [column for column in table.columns if column.title in _README_COLUMNS]
    return to_markdown([shown.machine_line, Table(short, released_here)], {})


def render_readme_peers(reports: Iterable[Shown]) -> str:
    """What stands between the README's markers for the comparison with other servers."""
    parts = []
    for shown in reports:
        compared = to_markdown(list(readme_peers(shown)), {})
        if compared:
            parts += [shown.machine_line, compared]
    return "\n\n".join(parts) or "Not measured yet: `cifar10 bench peers`."


def _readme_with_table(reports: Sequence[Shown], path: Path) -> str:
    """The README with the tables put in."""
    text = path.read_text(encoding="utf-8")
    if TABLE_BEGIN not in text or TABLE_END not in text:
        message = f"{path} has no place for the table: put {TABLE_BEGIN} and {TABLE_END} in it"
        raise BenchError(message)
    text = _between(text, TABLE_BEGIN, TABLE_END, render_readme_table(reports))
    return _between(text, PEERS_BEGIN, PEERS_END, render_readme_peers(reports))


def _between(text: str, begin: str, end: str, content: str) -> str:
    """``text`` with the part between two markers replaced; as it is where they are not in it."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        return text
    return f"{before}{begin}\n{content}\n{end}{after}"
