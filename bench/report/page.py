"""``report.html``: one page that needs nothing but itself.

Its text is Markdown, which markdown-it-py turns into HTML and escapes; templates are in
``templates/``.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report.charts.pictures import front
from bench.report.charts.svg import STYLE, draw
from bench.report.efficiency import tables_by_dataset
from bench.report.sections import all_sections
from bench.report.shown import Shown
from bench.report.tables import MOST_ROWS, Picture, Table
from bench.report.verdict import (
    better_if_trained,
    budget_table,
    headline,
    verdicts,
    verified,
    warnings,
)

_TEMPLATES: Final = Path(__file__).parent / "templates"
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")

MOST_PRINTED: Final = 40
"""Rows of a table that is printed; a longer one is read on the screen, or as CSV."""


def to_html(markdown: str) -> Markup:
    """Return Markdown text as HTML; nothing in it can become markup of its own."""
    return Markup(_MARKDOWN.render(markdown))  # noqa: S704 - escaped by the renderer


def inline(markdown: str) -> Markup:
    """Return one line of Markdown as HTML."""
    return Markup(_MARKDOWN.renderInline(markdown))  # noqa: S704 - escaped by the renderer


def render_html(reports: Sequence[Shown], commit: str = "") -> str:
    """Return the whole of ``report.html``; ``commit`` is that of the code that made it."""
    return _environment().get_template("page.html").render(
        title=headline(verdicts(reports[0])).replace("`", ""),
        style=Markup(STYLE) + _file("report.css"),  # noqa: S704 - ours
        script=_file("report.js"),
        commit=commit,
        machines=[_machine(shown, reports) for shown in reports],
    )  # fmt: skip


def _file(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - ours


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"markdown": to_html, "inline": inline, "svg": Markup}
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "picture": lambda block: isinstance(block, Picture),
    }
    return environment


def _machine(shown: Shown, reports: Sequence[Shown]) -> dict[str, Any]:
    """Return what the template shows of one machine."""
    found = verdicts(shown)
    panel = front(shown, large=True)
    datasets = sorted({one.dataset.variant for one in shown.subjects if one.dataset})
    sections = [(section, section.blocks(shown)) for section in all_sections()]
    return {
        "id": f"machine-{reports.index(shown) + 1}",
        "name": f"{shown.results.machine.cpu}, {shown.results.machine.logical_cores} cores",
        "line": shown.machine_line,
        "date": shown.results.rows[-1].created[:10],
        "datasets": ", ".join(datasets) or "none",
        "title": headline(found) if shown is reports[0] else f"On this machine: {headline(found)}",
        "verdicts": [
            (one, better_if_trained(one, reports), budget_table(one)) for one in found if one.model
        ],
        "remarks": [line for line in [*warnings(shown), verified(shown)] if line],
        "tables": tables_by_dataset(shown.subjects, shown.models, MOST_ROWS),
        "chart": draw(panel, "Accuracy against the latency of one image") if panel else "",
        "sections": [
            (section, blocks, all(_is_short(block) for block in blocks))
            for section, blocks in sections
            if blocks
        ],
    }


def _is_short(block: Any) -> bool:
    return not isinstance(block, Table) or len(block.rows) <= MOST_PRINTED
