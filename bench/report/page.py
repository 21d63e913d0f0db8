"""``report.html``: one page that needs nothing but itself.

Its text is that of ``REPORT.md``; the efficiency table can be sorted, and the pictures are in it.
"""

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.report.columns import COLUMNS, FLOORS, Entry, Value, entries
from bench.report.formats import accuracy_with_interval, percent, significant
from bench.report.markdown_html import inline, to_html
from bench.report.recommend import Pick, pick_for_budgets, reaches, reaches_a_floor, ship
from bench.report.sections.evidence import HOW_TO_MAKE, LEAST
from bench.rows.selection import ModelResult

_PAGE: Final = Path(__file__).parent / "templates"
_FIGURES: Final = re.compile(r"<figure>.*?</figure>", re.DOTALL)


def figure(picture: str) -> str:
    """A picture as the page holds it."""
    return f'<figure><div class="picture" tabindex="0">{picture}</div></figure>'


def without_figures(page: str) -> str:
    """The page's text: what must not differ, whatever version of matplotlib drew the pictures."""
    return _FIGURES.sub("<figure></figure>", page)


def render_page(title: str, body: str, digest: str) -> str:
    """The whole page.

    Args:
        title: plain text.
        body: ready HTML.
        digest: of the rows that the pictures were drawn from.
    """
    style = (_PAGE / "report.css").read_text(encoding="utf-8")
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta name="rows" content="{digest}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def answer(results: Sequence[ModelResult], machine: str) -> str:
    """The first screen: what to ship, and what it would cost.

    Args:
        results: as :func:`bench.rows.selection.select` orders them.
        machine: one sentence on the machine, plain text.
    """
    picks = pick_for_budgets(results)
    free = picks[-1].model
    if free is None or free.accuracy is None:
        lead = "<h1>No model can be recommended yet</h1><p>No accuracy has been measured here.</p>"
        return (
            f'<section class="answer">{lead}<p class="small">{html.escape(machine)}</p></section>'
        )
    top1 = free.accuracy.top1
    name = f"<code>{html.escape(free.model)}</code>"
    if reaches_a_floor(free):
        lead = f"<h1>Ship {name}</h1>"
    else:
        lead = f"<h1>Best here: {name}, but no model reaches {percent(FLOORS[-1][0], 0)} %</h1>"
    lead += f'<p class="lead">{_because(picks[-1])}</p>'
    cards = [
        ("accuracy", f"{percent(top1.accuracy)} %", f"95 % interval {percent(top1.low)}–"
         f"{percent(top1.high)}, n = {top1.count:,}"),
        ("latency of one image", _with_unit(free.typical_latency_ms, "ms"),
         f"{'mean' if free.exits_early else 'p50'}; p99 {_with_unit(free.latency_ms(99), 'ms')}"),
    ]  # fmt: skip
    if free.cost is not None:
        cards.append(("file", f"{significant(free.cost.size_bytes / 1e6)} MB",
                      f"{free.cost.parameters_total:,} parameters"))  # fmt: skip
        cards.append(("work", f"{significant(free.cost.macs / 1e6)} M MACs", "for one image"))
    shown = "".join(
        f"<li><span>{name}</span><strong>{figure}</strong><span>{more}</span></li>"
        for name, figure, more in cards
    )
    return (
        f'<section class="answer">{lead}<ul class="cards">{shown}</ul>'
        f'<h2 class="tight">For each budget</h2>{_budget_table(picks)}'
        f'<p class="small">{inline(HOW_TO_MAKE)}</p>'
        f'<p class="small">{html.escape(machine)}</p></section>'
    )


def sortable_table(results: Sequence[ModelResult], name: str) -> str:
    """The efficiency table, with a button in every heading.

    Args:
        results: as :func:`bench.rows.selection.select` orders them.
        name: of the machine, for the caption; plain text.
    """
    lines = entries(results)
    head = "".join(
        f'<th scope="col" aria-sort="none"{_number(column.align)}>'
        f'<button type="button">{html.escape(column.title)}</button></th>'
        for column in COLUMNS
    )
    body = "".join(_row(entry) for entry in lines)
    return (
        '<div class="scroll" tabindex="0"><table class="sortable">'
        f"<caption>Measured on {html.escape(name)}; a heading sorts by its column</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def page_digest(parts: Sequence[str]) -> str:
    """Of the rows of all machines."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def section(title: str, markdown: str, pictures: Mapping[str, str]) -> str:
    """A section of the report; nothing for an empty one."""
    if not markdown:
        return ""
    return f"<section><h2>{inline(title)}</h2>\n{to_html(markdown, pictures)}</section>"


def _because(pick: Pick) -> str:
    """One sentence: why this one."""
    model = pick.model
    if model is None or model.accuracy is None:
        return ""
    if pick.as_accurate:
        others = ", ".join(f"<code>{html.escape(one.model)}</code>" for one in pick.as_accurate)
        reason = (
            f"No model here is measurably more accurate (nor is {others} less), and it is faster."
        )
    else:
        reason = "No other model measured here is as accurate."
    if reaches_a_floor(model):
        return f"{reason} It reaches the floor of {html.escape(reaches(model))}."
    lowest, whose = FLOORS[-1]
    return (
        f"{reason} {percent(lowest, 0)} % is the floor that {whose} sets for CIFAR-10: below it, "
        "speed and size are beside the point."
    )


def _budget_table(picks: Sequence[Pick]) -> str:
    rows = []
    for pick in picks:
        model = pick.model
        if model is None or model.accuracy is None:
            rows.append(
                f"<tr><th scope=row>{inline(pick.budget.title)}</th>"
                "<td colspan=5>nothing measured here fits</td></tr>"
            )
            continue
        as_good = ", ".join(f"<code>{html.escape(one.model)}</code>" for one in pick.as_accurate)
        rows.append(
            f"<tr><th scope=row>{inline(pick.budget.title)}</th>"
            f"<td>{inline(ship(pick))}</td>"
            f"<td class=number>{accuracy_with_interval(model.accuracy.top1)}</td>"
            f"<td class=number>{_with_unit(model.typical_latency_ms, 'ms')}</td>"
            f"<td>{html.escape(reaches(model))}</td>"
            f"<td>{as_good or 'none'}</td></tr>"
        )
    head = "".join(
        f"<th scope=col{kind}>{title}</th>"
        for title, kind in (
            ("Budget", ""), (f"Ship ({LEAST})", ""), ("Accuracy, %", " class=number"),
            ("One image", " class=number"), ("Floor reached", ""),
            ("No less accurate, but dearer", ""),
        )
    )  # fmt: skip
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _row(entry: Entry) -> str:
    cells = []
    for position, column in enumerate(COLUMNS):
        tag = "th scope=row" if position == 0 else "td"
        text = inline(column.text(entry))
        cells.append(
            f'<{tag}{_number(column.align)} data-sort="{_sort_key(column.sort(entry))}">{text}'
            f"</{tag.split()[0]}>"
        )
    return f"<tr>{''.join(cells)}</tr>"


def _sort_key(value: Value) -> str:
    if value is None:
        return ""
    return html.escape(value) if isinstance(value, str) else repr(float(value))


def _number(align: str) -> str:
    return ' class="number"' if align == "right" else ""


def _with_unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{significant(value)} {unit}"
