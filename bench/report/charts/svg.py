"""SVG charts: panels with axes, lines, points, cells and direct labels.

A chart is text that follows from its data alone, so the same rows give the same file on every
machine, whatever fonts it has. Colours are CSS variables, so that a page can be light or dark.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, pairwise
from typing import Final

from bench.report.charts.labels import CHARACTER, Frame, Labels

GREY: Final = -1
"""Look of everything that has no colour of its own."""

LOOKS: Final = 6
"""Number of looks (colour and marker) that can be told apart in one chart."""

STYLE: Final = """\
svg { --c0: #0072b2; --c1: #c44e00; --c2: #00805c; --c3: #b0568a; --c4: #8a6d00;
  --c5: #3a7ca5; --c-1: #6b7885; }
.chart { font: 11px system-ui, sans-serif; fill: currentColor; }
.chart .frame, .chart .grid { stroke: currentColor; fill: none; }
.chart .grid { opacity: .16; } .chart .frame { opacity: .5; }
.chart .name { font-weight: 600; } .chart .soft { opacity: .75; }
.chart .line { fill: none; stroke-width: 1.8; } .chart .dashed { stroke-dasharray: 4 3; }
.chart .mark { stroke-width: 1.6; } .chart .bar { stroke-width: 1.3; }
"""
"""Rules for an SVG file; a page has them in its own style, with colours for a dark screen."""

_MARKERS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "M-3.6-3.6h7.2v7.2h-7.2Z", "M0-4.6 4.4 3.6h-8.8Z",
    "M0-4.9 4.9 0 0 4.9-4.9 0Z", "M0 4.6 4.4-3.6h-8.8Z",
    "M-1.5-4.4h3v2.9h2.9v3h-2.9v2.9h-3v-2.9h-2.9v-3h2.9Z",
)  # fmt: skip

_LOG_FROM: Final = 6
"""An axis is logarithmic when its largest value is at least this many times its smallest."""


@dataclass(frozen=True)
class Axis:
    """Range, ticks and title of one axis."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Position of a value along the axis: 0 at its start, 1 at its end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Mark:
    """One point."""

    x: float
    y: float
    look: int = GREY
    tip: str = ""
    """Text shown on hover or focus."""
    label: str = ""
    low: float | None = None
    """Lower end of an interval; together with ``high``."""
    high: float | None = None
    hollow: bool = False
    across: bool = False
    """Whether the interval lies along the x axis."""


@dataclass(frozen=True)
class Line:
    """Connected points."""

    points: Sequence[tuple[float, float]]
    look: int = GREY
    dashed: bool = False
    step: bool = False
    label: str = ""
    """Text above its last point, or above its first."""


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map, with its share (0–1) of full colour."""

    x: float
    y: float
    share: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One set of axes and what is drawn in it."""

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark] = ()
    lines: Sequence[Line] = ()
    cells: Sequence[Cell] = ()
    width: int = 340
    height: int = 230


def numbers(
    title: str, values: Iterable[float], *, low: float | None = None, high: float | None = None,
    log: bool | None = None, unit: str = "",
) -> Axis:  # fmt: skip
    """Return an axis that fits the values.

    Args:
        title: what the axis shows, with its unit.
        values: everything that will be drawn.
        low: start of the axis, instead of one that fits.
        high: end of the axis.
        log: whether it is logarithmic; by default if the values span much.
        unit: appended to each tick.
    """
    known = list(values) or [0.0, 1.0]
    least, most = min(known), max(known)
    log = (0 < _LOG_FROM * least <= most) if log is None else log and least > 0
    if log:
        least, most = least / 1.25, most * 1.25
        ticks = [
            factor * 10.0**exponent
            for exponent in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
            for factor in ((1,) if most > 400 * least else (1, 2, 5))
        ]
    else:
        space = (most - least) * 0.08 or abs(most) * 0.05 or 1.0
        least = least - space if low is None else low
        most = most + space if high is None else high
        rough = (most - least) / 4.5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
        first = math.ceil(least / step - 1e-9)
        ticks = [step * n for n in range(first, math.floor(most / step + 1e-9) + 1)]
    shown = tuple((one, f"{one:,.10g}{unit}") for one in ticks if least <= one <= most * (1 + 1e-9))
    return Axis(title, least, most, shown, log)


def names(found: Sequence[str], *, upwards: bool = False) -> Axis:
    """Return an axis of names, the first one at the top (or left) unless ``upwards``."""
    ends = (-0.5, len(found) - 0.5) if upwards else (len(found) - 0.5, -0.5)
    return Axis("", *ends, tuple((float(n), name) for n, name in enumerate(found)))


def draw(panel: Panel, description: str, place: str = "") -> str:
    """Return the panel as an ``<svg>`` element.

    Args:
        panel: what to draw.
        description: alternative text.
        place: attributes ``x`` and ``y`` inside another SVG.
    """
    left = max(46.0, 14 + CHARACTER * max((len(t) for _, t in panel.y.ticks), default=0))
    left += 0 if not panel.y.title else 8
    slanted = not panel.x.title
    top = 22.0 if panel.title else 10.0
    frame = (left, top, panel.width - 12.0, panel.height - (62.0 if slanted else 38.0))
    parts = [*_axes(panel, frame, slanted)]
    for cell in panel.cells:
        parts.append(_cell(cell, panel, frame))
    for line in panel.lines:
        parts.append(_line(line, panel, frame))
    labels = Labels(frame)
    points = [(*_at(panel, frame, mark.x, mark.y), mark) for mark in panel.marks]
    for x, y, _ in points:
        labels.taken.append((x - 5, y - 5, x + 5, y + 5))
    for line in panel.lines:
        ends = [_at(panel, frame, *point) for point in line.points]
        labels.lines += _boxes(ends, line.step)
        if line.label:
            parts.append(labels.above(ends[0], ends[-1], line.label))
    for x, y, mark in points:
        parts.append(_mark(x, y, mark, panel, frame))
    parts += [labels.put(x, y, mark.label, mark.look) for x, y, mark in points if mark.label]
    return (
        f'<svg class="chart" {place}viewBox="0 0 {panel.width} {panel.height}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def draw_file(
    panels: Sequence[Panel], description: str, legend: Sequence[tuple[int, str]] = ()
) -> str:
    """Return an SVG file with all panels, on white, below a legend of (look, name)."""
    width, height = panels[0].width, max(panel.height for panel in panels)
    columns = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    keys, lines = _legend(legend, width * columns)
    top = 24 * lines
    rows = -(-len(panels) // columns)
    inner = "\n".join(
        draw(
            panel, panel.title or description,
            f'x="{number % columns * width}" y="{top + number // columns * height}" '
            f'width="{panel.width}" height="{panel.height}" ',
        )
        for number, panel in enumerate(panels)
    )  # fmt: skip
    size = f"{width * columns} {top + height * rows}"
    inner += keys
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
        f'width="{width * columns}" color="#1b1f24">\n<title>{escape(description)}</title>\n'
        f'<style>{STYLE}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n{inner}\n</svg>\n'
    )


def _legend(names: Sequence[tuple[int, str]], width: int) -> tuple[str, int]:
    """Return the markers and names, wrapped to ``width``, and the number of lines."""
    keys, place, line = "", 12.0, 0
    for look, name in names:
        length = 30 + CHARACTER * 1.1 * len(name)
        if place > 12 and place + length > width:
            place, line = 12.0, line + 1
        keys += f'\n<g class="chart" transform="translate({place:.1f} {14 + 24 * line})">'
        keys += f'{marker(look)}<text x="9" y="4">{escape(name)}</text></g>'
        place += length
    return keys, line + 1 if names else 0


def marker(look: int) -> str:
    """Return the marker of a look, centred on its origin."""
    return f'<path d="{_MARKERS[max(0, look)]}" style="fill:var(--c{look})"/>'


def _at(panel: Panel, frame: Frame, x: float, y: float) -> tuple[float, float]:
    left, top, right, bottom = frame
    return (
        left + panel.x.share(x) * (right - left),
        bottom - panel.y.share(y) * (bottom - top),
    )


def _axes(panel: Panel, frame: Frame, slanted: bool) -> list[str]:
    left, top, right, bottom = frame
    parts = [f'<path class="frame" d="M{left:.1f} {top}V{bottom:.1f}H{right:.1f}"/>']
    grid, texts = [], []
    last = -math.inf
    for value, text in panel.x.ticks:
        x, _ = _at(panel, frame, value, panel.y.low)
        if slanted:
            texts.append(
                f'<text transform="translate({x + 3:.1f} {bottom + 12:.1f}) rotate(-40)" '
                f'text-anchor="end">{escape(text)}</text>'
            )
            continue
        grid.append(f"M{x:.1f} {top}V{bottom:.1f}")
        half = len(text) * CHARACTER / 2
        if x - half > last:
            last = x + half + 4
            anchor = "end" if x + half > panel.width else "middle"
            shown = min(x, panel.width - 2.0) if anchor == "end" else x
            texts.append(
                f'<text x="{shown:.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}">{text}</text>'
            )
    for value, text in panel.y.ticks:
        _, y = _at(panel, frame, panel.x.ticks[0][0] if panel.x.ticks else panel.x.low, value)
        grid.append(f"M{left:.1f} {y:.1f}H{right:.1f}")
        texts.append(
            f'<text x="{left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
    if panel.title:
        texts.append(f'<text class="name" x="2" y="12">{escape(panel.title)}</text>')
    if panel.x.title:
        texts.append(
            f'<text class="soft" x="{right:.1f}" y="{panel.height - 5}" text-anchor="end">'
            f"{escape(panel.x.title)}</text>"
        )
    if panel.y.title:
        middle = (top + bottom) / 2
        texts.append(
            f'<text class="soft" transform="translate(10 {middle:.1f}) rotate(-90)" '
            f'text-anchor="middle">{escape(panel.y.title)}</text>'
        )
    if not panel.cells:
        parts.insert(0, f'<path class="grid" d="{"".join(grid)}"/>')
    return [*parts, *texts]


def _line(line: Line, panel: Panel, frame: Frame) -> str:
    path = ""
    for number, (x, y) in enumerate(_at(panel, frame, *point) for point in line.points):
        if not number:
            path = f"M{x:.1f} {y:.1f}"
        else:
            path += f"H{x:.1f}V{y:.1f}" if line.step else f"L{x:.1f} {y:.1f}"
    dashed = " dashed" if line.dashed else ""
    return f'<path class="line{dashed}" style="stroke:var(--c{line.look})" d="{path}"/>'


def _boxes(points: Sequence[tuple[float, float]], step: bool) -> list[Frame]:
    """Return what the level and upright parts of a line cover; slanted parts cover nothing."""
    if step:
        corners = [(after[0], before[1]) for before, after in pairwise(points)]
        points = [*chain.from_iterable(zip(points, corners, strict=False)), *points[-1:]]
    return [
        (min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1)
        for (x0, y0), (x1, y1) in pairwise(points)
        if x0 == x1 or y0 == y1
    ]


def _cell(cell: Cell, panel: Panel, frame: Frame) -> str:
    x0, y0 = _at(panel, frame, cell.x - 0.5, cell.y - 0.5)
    x1, y1 = _at(panel, frame, cell.x + 0.5, cell.y + 0.5)
    return (
        f'<rect x="{x0:.1f}" y="{min(y0, y1):.1f}" width="{x1 - x0:.1f}" '
        f'height="{abs(y1 - y0):.1f}" style="fill:var(--c0)" fill-opacity="{cell.share:.2f}"/>'
        f'<text x="{(x0 + x1) / 2:.1f}" y="{(y0 + y1) / 2 + 4:.1f}" text-anchor="middle">'
        f"{escape(cell.text)}</text>"
    )


def _mark(x: float, y: float, mark: Mark, panel: Panel, frame: Frame) -> str:
    colour = f"var(--c{mark.look})"
    interval = ""
    if mark.low is not None and mark.high is not None:
        ends = [
            _at(panel, frame, end, mark.y) if mark.across else _at(panel, frame, mark.x, end)
            for end in (mark.low, mark.high)
        ]
        (x0, y0), (x1, y1) = ends
        interval = (
            f'<path class="bar" style="stroke:{colour}" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
        )
    fill = "none" if mark.hollow else colour
    tip = f' tabindex="0" role="img" aria-label="{escape(mark.tip)}"' if mark.tip else ""
    return (
        f'{interval}<path class="mark"{tip} style="stroke:{colour};fill:{fill}" '
        f'pointer-events="all" transform="translate({x:.1f} {y:.1f})" '
        f'd="{_MARKERS[max(0, mark.look)]}"/>'
    )
