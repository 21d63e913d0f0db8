"""Render all outputs from rows: ``REPORT.md``, ``report.html``, CSV files, charts, README tables.

The same rows always give the same text, on every machine, so ``--check`` tells whether the
committed files show what was measured. ``report.html`` is built, not committed.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.report.charts.pictures import front
from bench.report.efficiency import Entry, efficiency_csv, efficiency_records, tables_by_dataset
from bench.report.formats import NOTHING
from bench.report.page import render_html
from bench.report.sections import all_sections
from bench.report.sections.peers import readme_peers
from bench.report.shown import CIFAR10, Shown, by_dataset, dataset_name
from bench.report.tables import MOST_ROWS, Block, Column, Picture, Table, to_markdown, words
from bench.report.verdict import (
    better_if_trained,
    headline,
    reaches_a_floor,
    told_apart,
    verdicts,
    verified,
    warnings,
)
from bench.rows.files import MachineResults
from bench.rows.selection import ModelResult, select
from cifar10.environment import EFFICIENCY_FILE
from cifar10.errors import BenchError
from cifar10.store import write_atomic

REPORT_FILE: Final = "REPORT.md"
PAGE_FILE: Final = "report.html"
CSV_FILE: Final = "table.csv"
README_FILE: Final = "README.md"
PEERS_FILE: Final = "docs/peers.md"
TABLE_BEGIN: Final = "<!-- efficiency-table:begin -->"
TABLE_END: Final = "<!-- efficiency-table:end -->"
PEERS_BEGIN: Final = "<!-- peers:begin -->"
PEERS_END: Final = "<!-- peers:end -->"
"""Markers in ``docs/peers.md`` around the comparison with other servers."""

FEW: Final = ("front", "trade_offs", "throughput", "load", "robustness", "training")
"""Charts of the first machine that ``REPORT.md`` shows and that are committed."""

_MADE_BY: Final = "<!-- Made by `cifar10 report` from results/: do not edit. -->"


def prepare(
    found: Sequence[MachineResults], results: Path, store: Mapping[str, str] | None = None
) -> list[Shown]:
    """Select what the report shows for each machine.

    The machine with rows of the most released files comes first; of several, the one measured last.

    Args:
        found: rows of every machine.
        results: folder of the rows.
        store: name → digest of the released models; if empty, every model counts as released.

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


def write_report(
    reports: Sequence[Shown], results: Path, output: Path, commit: str = ""
) -> list[Path]:
    """Write all outputs, and the tables in ``README.md`` and ``docs/peers.md`` if they exist.

    Returns:
        The files written.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    texts = _texts(reports, results, output)
    texts[output / PAGE_FILE] = render_html(reports, commit)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    for path in _generated(reports, results) - set(texts):
        path.unlink()
    return list(texts)


def stale_files(reports: Sequence[Shown], results: Path, output: Path) -> list[Path]:
    """Return the committed files that :func:`write_report` would change or remove.

    Raises:
        BenchError: ``README.md`` has no place for the table.
    """
    texts = _texts(reports, results, output)
    changed = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    return [*changed, *sorted(_generated(reports, results) - set(texts))]


def _generated(reports: Sequence[Shown], results: Path) -> set[Path]:
    """Return the generated files that are there: all tables and charts of all machines."""
    folders = [results / shown.results.name for shown in reports]
    return {path for folder in folders for ending in ("*.csv", "plots/*.svg", "plots/*.png")
            for path in folder.glob(ending)}  # fmt: skip


def _texts(reports: Sequence[Shown], results: Path, output: Path) -> dict[Path, str]:
    """Return the text of every committed file."""
    texts = {}
    for shown in reports:
        folder = results / shown.results.name
        texts[folder / CSV_FILE] = efficiency_csv(shown.models)
        for table in (block for section in all_sections() for block in section.blocks(shown)):
            if isinstance(table, Table) and table.name and len(table.rows) > MOST_ROWS:
                texts[folder / f"{table.name}.csv"] = table.csv()
    plots = results / reports[0].results.name / "plots"
    for name, picture in _few_pictures(reports[0]).items():
        texts[plots / f"{name}.svg"] = picture.file()
    texts[results / EFFICIENCY_FILE] = render_json(reports)
    texts[output / REPORT_FILE] = render_report(reports, results, output)
    readme, peers = output / README_FILE, output / PEERS_FILE
    if readme.is_file():
        texts[readme] = _readme_with_table(reports, readme)
    if peers.is_file():
        text = peers.read_text(encoding="utf-8")
        texts[peers] = _between(text, PEERS_BEGIN, PEERS_END, render_readme_peers(reports))
    return texts


def _few_pictures(shown: Shown) -> dict[str, Picture]:
    found = {
        block.name: block
        for section in all_sections()
        for block in section.blocks(shown)
        if isinstance(block, Picture)
    }
    panel = front(shown, large=True)
    if panel is not None:
        found["front"] = Picture("front", "Accuracy against the latency of one image.", [panel])
    return {name: found[name] for name in FEW if name in found}


def render_json(reports: Sequence[Shown]) -> str:
    """Return ``efficiency.json``: the efficiency table of every machine."""
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
    """Return ``REPORT.md``; links are relative to ``output``.

    The first machine's sections are shown; of the others the verdict and the table.
    """
    found = verdicts(reports[0])
    parts = [
        _MADE_BY,
        f"# {headline(found)}",
        f"`cifar10 report` also builds `{PAGE_FILE}`, a page with all machines, all charts and "
        "tables that sort and filter. What the columns mean: "
        "[docs/measuring.md](docs/measuring.md); other servers: [docs/peers.md](docs/peers.md).",
    ]
    for shown in reports:
        folder = Path(os.path.relpath((results / shown.results.name).resolve(), output.resolve()))
        link = folder.as_posix()
        first = shown is reports[0]
        pictures = {name: f"{link}/plots/{name}.svg" for name in FEW} if first else {}
        parts.append(f"## {shown.results.machine.cpu}")
        parts.append(to_markdown(_opening(shown, reports), pictures, link))
        for section in all_sections() if first else ():
            body = to_markdown(section.blocks(shown), pictures, link)
            if body and not section.page_only:
                parts += [f"### {section.title}", body]
    return "\n\n".join(parts) + "\n"


def _opening(shown: Shown, reports: Sequence[Shown]) -> list[Block]:
    """Return the verdict and the table of one machine."""
    lines = []
    found = verdicts(shown)
    if shown is not reports[0]:
        lines.append(f"- On this machine: {headline(found)}.")
    for verdict in found:
        figures = "; ".join(f"{figure} {what}" for figure, what in verdict.figures)
        if figures and verdict.model is not None:
            lines.append(f"- `{verdict.model.model}`: {figures}. {verdict.reason}")
        more = verdict.not_compared, better_if_trained(verdict, reports)
        lines += [f"- {line}" for line in more if line]
    lines += [f"- {line}" for line in [*warnings(shown), verified(shown)] if line]
    lines.append(f"- {shown.machine_line} All models: [{CSV_FILE}]"
                 f"(results/{shown.results.name}/{CSV_FILE}).")  # fmt: skip
    blocks: list[Block] = ["\n".join(lines)]
    for dataset, table in tables_by_dataset(shown.subjects, shown.models, MOST_ROWS).items():
        blocks += [_on(dataset), table.short()] if dataset != CIFAR10 else [table.short()]
    picture = _few_pictures(shown).get("front")
    return [*blocks, picture] if picture is not None else blocks


def render_readme_table(reports: Sequence[Shown]) -> str:
    """Return the README's table and chart: the released models on the first machine."""
    shown = reports[0]
    use: Column[Entry] = words("Use it when", lambda entry: _use(entry.result, shown))
    blocks: list[Block] = []
    for dataset, table in tables_by_dataset(shown.subjects, shown.models).items():
        short = table.short()
        kept = [one for one in short.columns[1:] if one.title not in ("MACs, M", "Parameters")]
        blocks += [_on(dataset)] if dataset != CIFAR10 else []
        blocks.append(Table([short.columns[0], use, *kept], short.rows))
    picture = f"![Accuracy against latency](results/{shown.results.name}/plots/front.svg)"
    return to_markdown([*blocks, shown.machine_line, picture], {})


def _on(dataset: str) -> str:
    return f"On {dataset}:"


def _use(model: ModelResult, shown: Shown) -> str:
    """Return when to use a released model."""
    dataset = dataset_name(model)
    if dataset != CIFAR10:
        return f"your images are {dataset}"
    if any(model is verdict.model for verdict in verdicts(shown)):
        return "you have no special need: fast, small, accurate enough"
    if model is _most_accurate(by_dataset(shown.subjects)[dataset]):
        return "accuracy matters most"
    timed = [one for one in shown.subjects if one.typical_latency_ms is not None]
    if timed and model is min(timed, key=lambda one: one.typical_latency_ms or 0.0):
        return "speed matters more than accuracy"
    if not reaches_a_floor(model):
        return "you need a baseline: the reference study's CNN"
    if model.precision == "fp32":
        return "you need float32, on a GPU for example"
    return _in_between(model, by_dataset(shown.subjects)[dataset])


def _in_between(model: ModelResult, others: Sequence[ModelResult]) -> str:
    """Return what a model is between: the nearest less accurate and the nearest slower one."""
    latency, right = model.typical_latency_ms, model.share_right
    if latency is None or right is None:
        return NOTHING
    timed = [
        (one.typical_latency_ms, one.share_right or 0.0, one)
        for one in others
        if one.typical_latency_ms is not None and one is not model
    ]
    faster = [one for ms, share, one in timed if ms < latency and share < right]
    slower = [(ms, one.model) for ms, share, one in timed if ms > latency and share > right]
    is_dominated = any(ms <= latency and share >= right for ms, share, _ in timed)
    if is_dominated or not faster or not slower:
        return NOTHING
    less, more = _most_accurate(faster).model, min(slower)[1]
    return f"`{less}` is not accurate enough and `{more}` too slow"


def _most_accurate(models: Sequence[ModelResult]) -> ModelResult:
    """Return the fastest of the models that do not differ significantly from the most accurate."""
    best = max(models, key=lambda one: one.share_right or 0.0)
    equal = [one for one in models if one is best or not told_apart(best, one)]
    return min(equal, key=lambda one: one.typical_latency_ms or float("inf"))


def render_readme_peers(reports: Iterable[Shown]) -> str:
    """Return the comparison with other servers for ``docs/peers.md``."""
    parts = []
    for shown in reports:
        compared = to_markdown(list(readme_peers(shown)), {})
        if compared:
            parts += [shown.machine_line, compared]
    return "\n\n".join(parts) or "Not measured yet: `cifar10 bench peers`."


def _readme_with_table(reports: Sequence[Shown], path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if TABLE_BEGIN not in text or TABLE_END not in text:
        message = f"{path} has no place for the table: put {TABLE_BEGIN} and {TABLE_END} in it"
        raise BenchError(message)
    return _between(text, TABLE_BEGIN, TABLE_END, render_readme_table(reports))


def _between(text: str, begin: str, end: str, content: str) -> str:
    """Return ``text`` with the part between two markers replaced, unchanged without them."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        return text
    return f"{before}{begin}\n{content}\n{end}{after}"
