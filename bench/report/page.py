"""``report.html``: one page that needs nothing but itself.

Its text is that of ``REPORT.md``; the efficiency table can be sorted, and every picture is in it.
Templates are in ``templates/``; Markdown becomes HTML through markdown-it-py, which escapes all
else.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report.efficiency import FLOORS, LEGEND, efficiency_table, gpu_line
from bench.report.formats import accuracy_with_interval, count, percent, significant
from bench.report.plots import draw as plots
from bench.report.recommend import (
    HOW_TO_MAKE,
    LEAST,
    Pick,
    pick_for_budgets,
    reaches,
    reaches_a_floor,
    ship,
)
from bench.report.sections import all_sections
from bench.report.shown import Shown
from bench.report.tables import Block, Column, Picture, Table, words
from bench.report.verdict import verdict

_TEMPLATES: Final = Path(__file__).parent / "templates"
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("strikethrough")


def to_html(markdown: str) -> Markup:
    """Markdown text as HTML; nothing in it can become markup of its own."""
    return Markup(_MARKDOWN.render(markdown))  # noqa: S704 - escaped by the renderer


def inline(markdown: str) -> Markup:
    """One line of Markdown as HTML."""
    return Markup(_MARKDOWN.renderInline(markdown))  # noqa: S704 - escaped by the renderer


def render_html(reports: Sequence[Shown], *, with_pictures: bool = True) -> str:
    """The whole of ``report.html``; without its pictures where only the text matters."""
    digests = "".join(shown.digest for shown in reports)
    template = _environment().get_template("page.html")
    return template.render(
        title="CIFAR-10 classifiers: which one to ship",
        digest=hashlib.sha256(digests.encode()).hexdigest()[:16],
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - ours
        script=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),  # noqa: S704 - ours
        machines=[_machine(shown, with_pictures=with_pictures) for shown in reports],
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"markdown": to_html, "inline": inline}
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "picture": lambda block: isinstance(block, Picture),
    }
    return environment


def _machine(shown: Shown, *, with_pictures: bool) -> dict[str, Any]:
    """What the template shows of one machine."""
    drawn = plots.draw_svgs(shown) if with_pictures else {}
    caption = f"Measured on {shown.results.machine.cpu}; a heading sorts by its column"
    sections: list[tuple[str, list[Block]]] = [
        ("In detail", ["\n".join(f"- {sentence}" for sentence in verdict(shown.models))]),
        (
            "The efficiency table",
            [efficiency_table(shown.models, caption), gpu_line(shown.models), LEGEND],
        ),
        *((section.title, section.blocks(shown)) for section in all_sections()),
    ]
    return {
        "line": shown.machine_line,
        "answer": _answer(shown),
        "sections": [
            (title, shown_blocks)
            for title, blocks in sections
            if (
                shown_blocks := [b for b in blocks if not isinstance(b, Picture) or b.name in drawn]
            )
        ],
        "pictures": {
            name: Markup(picture)  # noqa: S704 - drawn here
            for name, picture in drawn.items()
        },
    }


def _answer(shown: Shown) -> dict[str, Any]:
    """The first screen: what to ship, and what it costs."""
    picks = pick_for_budgets(shown.models)
    free = picks[-1].model
    if free is None or free.accuracy is None:
        return {
            "title": "No model can be recommended yet",
            "lead": "No accuracy of a file in `models/` has been measured here.",
            "cards": [],
            "budgets": None,
            "how": HOW_TO_MAKE,
        }
    top1 = free.accuracy.top1
    title = f"Ship `{free.model}`"
    if not reaches_a_floor(free):
        title = f"Best here: `{free.model}`, but no model reaches {percent(FLOORS[-1][0], 0)} %"
    interval = f"{percent(top1.low)}–{percent(top1.high)}, n = {count(top1.count)}"
    typical = "mean" if free.exits_early else "p50"
    cards = [
        ("accuracy", f"{percent(top1.accuracy)} %", f"95 % interval {interval}"),
        ("latency of one image", _ms(free.typical_latency_ms),
         f"{typical}; p99 {_ms(free.latency_ms(99))}"),
    ]  # fmt: skip
    if free.cost is not None:
        parameters = f"{count(free.cost.parameters_total)} parameters"
        cards.append(("file", f"{significant(free.cost.size_bytes / 1e6)} MB", parameters))
        cards.append(("work", f"{significant(free.cost.macs / 1e6)} M MACs", "for one image"))
    columns: list[Column[Pick]] = [
        words("Budget", lambda pick: pick.budget.title),
        words(f"Ship ({LEAST})", lambda p: ship(p) if p.model else "nothing measured here fits"),
        Column("Accuracy, %", _accuracy),
        Column("One image", lambda pick: _ms(pick.model.typical_latency_ms if pick.model else None)),  # noqa: E501
        words("Floor reached", lambda pick: reaches(pick.model)),
        words("Equally accurate, higher cost",
              lambda pick: ", ".join(f"`{one.model}`" for one in pick.as_accurate) or "none"),
    ]  # fmt: skip
    return {
        "title": title,
        "lead": _because(picks[-1]),
        "cards": cards,
        "budgets": Table(columns, picks),
        "how": HOW_TO_MAKE,
    }


def _because(pick: Pick) -> str:
    """Why this model, in Markdown."""
    if pick.as_accurate:
        others = ", ".join(f"`{one.model}`" for one in pick.as_accurate)
        reason = (
            f"No model here is measurably more accurate (nor is {others} less), and it is faster."
        )
    else:
        reason = "No other model measured here is as accurate."
    if reaches_a_floor(pick.model):
        return f"{reason} It reaches the floor of {reaches(pick.model)}."
    lowest, whose = FLOORS[-1]
    return (
        f"{reason} {percent(lowest, 0)} % is the floor that {whose} sets for CIFAR-10: below it, "
        "speed and size are beside the point."
    )


def _accuracy(pick: Pick) -> str:
    found = pick.model.accuracy if pick.model else None
    return accuracy_with_interval(found.top1 if found else None)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{significant(value)} ms"
