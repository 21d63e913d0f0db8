"""How every picture of the report looks, on paper, on a white page and on a dark one.

Okabe and Ito's colours ("Color Universal Design", 2008), told apart by colour-blind readers, and
markers or line styles beside them.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.report.formats import short_provider
from bench.rows.selection import ModelResult

COLOURS: Final = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C7A00",
)  # fmt: skip
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: Final = ("-", "--", "-.", ":")

MOST_LINES: Final = len(COLOURS)
"""More curves than this cannot be told apart; the most accurate models are shown."""

MOST_POINTS: Final = 300
"""Of one curve: a distribution of thousands of samples looks the same with these."""

MARKED_EPOCHS: Final = 30
"""A curve of fewer epochs has a marker at each."""

INK: Final = "#010203"
"""Text and axes; in a page it becomes the page's own colour of text."""

_LOG_FROM: Final = 5
"""An axis is logarithmic when its largest value is at least this many times its smallest."""

_DECADES_FROM: Final = 60
"""From this span on, only powers of ten are written out."""

STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element for a page: no outside names, text as text.

    Args:
        figure: made under :data:`STYLE`.
        name: unique in the page; keeps the identifiers of several pictures apart.
        description: what a reader who cannot see it is told; already escaped for an attribute.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(
        r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", text
    )
    for colour in (INK, "#000000"):
        text = text.replace(colour, "currentColor")
    (box,) = re.findall(r'viewBox="[^"]+"', text)[:1]
    return (
        f'<svg role="img" aria-label="{description}" {box}>' + text[text.index(">") + 1 :].strip()
    )


def cumulative(axes: Any, samples: Any, position: int, label: str) -> None:
    """The share of ``samples`` (sorted) up to each value, up to the 99.5th percentile."""
    shares = np.arange(1, samples.size + 1) / samples.size * 100
    last = max(1, int((shares <= 99.5).sum()))
    shown = np.unique(np.linspace(0, last - 1, MOST_POINTS).astype(int))
    axes.step(
        samples[shown],
        shares[shown],
        where="post",
        color=COLOURS[position % len(COLOURS)],
        linestyle=LINES[position % len(LINES)],
        label=label,
    )


def finish_cumulative(axes: Any, x_label: str, y_label: str) -> None:
    """Axes and legend of :func:`cumulative`'s curves."""
    readable_axis(axes, axes.xaxis)
    axes.set_ylim(0, 100)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.figure.legend(fontsize=8, loc="outside right upper")


def readable_axis(axes: Any, axis: Any) -> bool:
    """Logarithmic, with plain figures, where the data span much; else linear. Whether it did."""
    across = axis is axes.xaxis
    low, high = axes.dataLim.intervalx if across else axes.dataLim.intervaly
    if not 0 < _LOG_FROM * low <= high:
        return False
    (axes.set_xscale if across else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _DECADES_FROM * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(NullFormatter())
    return True


def label_of(result: ModelResult, results: Sequence[ModelResult]) -> str:
    """The model's name; with its provider where several are in the picture."""
    several = len({other.provider for other in results if other.provider}) > 1
    return f"{result.model}, {short_provider(result.provider)}" if several else result.model
