"""The report's pictures, drawn from rows: never while measuring.

Each picture names its n and its units. Every file carries a digest of the rows that it was drawn
from, so that a stale one is noticed.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.report.efficiency import FLOORS
from bench.report.plots.axes import COST_AXES
from bench.report.plots.evidence import draw_calibration, draw_robustness, draw_training
from bench.report.plots.style import (
    COLOURS,
    LINES,
    MARKERS,
    MOST_LINES,
    STYLE,
    cumulative,
    finish_cumulative,
    label_of,
    readable_axis,
    svg,
)
from bench.report.shown import Shown
from bench.report.study.front import placed, repeats
from bench.report.study.plots import (
    draw_backbones,
    draw_cnn_and_transfer,
    draw_gaps,
    draw_study_front,
    has_backbones,
    has_both_kinds,
    with_gap,
)
from bench.report.study.reference import STUDY
from bench.rows.seeds import one_of_each
from bench.rows.selection import TRADE_OFFS, ModelResult, fronts
from cifar10.labels import LABELS

_LABELS_APART: Final = 0.15
"""Two figures nearer than this many powers of ten would lie over each other."""

MOST_MATRICES: Final = 3

BEATEN: Final = "#8a9ba8"
"""Of models on no front, where there are too many for a colour each."""

_DIGEST_KEY: Final = "Rows"

DESCRIPTIONS: Final = {
    "trade_offs": "Accuracy of each model against its latency, file size and multiply-accumulates",
    "latency": "Distribution of the time of one call at batch 1",
    "throughput": "Images per second against batch size",
    "throughput_latency": "Images per second against the time of one call, by batch size",
    "load": "Distribution of response times over HTTP",
    "confusion": "Confusion matrix of the most accurate model, and of the study's that we have",
    "calibration": "Share of right answers against confidence",
    "robustness": "Accuracy on damaged copies against the severity of the damage",
    "training": "Accuracy on training and validation images, epoch by epoch",
    "study_front": "The reference study's models among ours: accuracy against each cost",
    "cnn_and_transfer": "Validation accuracy by epoch and test accuracy, CNN and transfer learning",
    "backbones": "Accuracy and file size of each backbone, ours and the study's",
    "gaps": "Accuracy on training and on test images, and the gap between them",
}
"""What each picture shows; the tables beside them hold the figures."""


FEW: Final = ("trade_offs", "study_front", "latency", "load", "cnn_and_transfer", "robustness")
"""Pictures that ``REPORT.md`` shows and that are committed: small, of the first machine."""

_FEW_DPI: Final = 110
_FEW_COLOURS: Final = 64


def draw_few(shown: Shown, folder: Path) -> list[Path]:
    """Draw the pictures of ``REPORT.md`` that the rows allow; return their files.

    Each carries a digest of the rows that it was drawn from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(shown.models)
    made = few_pictures(shown, folder)
    for path in made:
        with mpl.rc_context(STYLE):
            buffer = io.BytesIO()
            pictures[path.stem](shown.models).savefig(buffer, dpi=_FEW_DPI, facecolor="white")
        information = PngInfo()
        information.add_text(_DIGEST_KEY, shown.digest)
        with Image.open(buffer) as picture:
            small = picture.convert("RGB").quantize(_FEW_COLOURS, dither=Image.Dither.NONE)
            small.save(path, optimize=True, pnginfo=information)
    return made


def few_pictures(shown: Shown, folder: Path) -> list[Path]:
    """The files that :func:`draw_few` makes."""
    possible = _pictures(shown.models)
    return [folder / f"{name}.png" for name in FEW if name in possible]


def draw_svgs(shown: Shown) -> dict[str, str]:
    """Every picture that the rows allow as an ``<svg>`` element, by its name."""
    found = {}
    for name, draw in _pictures(shown.models).items():
        with mpl.rc_context(STYLE):
            picture = draw(shown.models)
            found[name] = svg(picture, f"{shown.results.name}-{name}", DESCRIPTIONS[name])
    return found


def is_stale(path: Path, digest: str) -> bool:
    """Whether a picture is missing or was drawn from other rows."""
    if not path.is_file():
        return True
    with Image.open(path) as picture:
        return picture.info.get(_DIGEST_KEY) != digest


def _pictures(
    results: Sequence[ModelResult],
) -> dict[str, Callable[[Sequence[ModelResult]], Figure]]:
    """Name of each picture that the results allow → what draws it, in the order shown."""
    possible = {
        "trade_offs": (draw_trade_offs, any(one.accuracy and one.cost for one in results)),
        "latency": (draw_latency, any(1 in one.latency for one in results)),
        "throughput": (draw_throughput, any(one.throughput for one in results)),
        "throughput_latency": (draw_throughput_latency, any(one.throughput for one in results)),
        "load": (draw_load, any(one.load for one in results)),
        "confusion": (draw_confusion, any(one.accuracy for one in results)),
        "calibration": (
            draw_calibration, any(one.accuracy and one.accuracy.reliability for one in results),
        ),
        "robustness": (draw_robustness, any(one.robustness for one in results)),
        "training": (draw_training, any(one.training and one.training.epochs for one in results)),
        "study_front": (
            draw_study_front,
            len(results) > 1 and any(one.ours.accuracy for one in placed(results)),
        ),
        "cnn_and_transfer": (draw_cnn_and_transfer, has_both_kinds(results)),
        "backbones": (draw_backbones, has_backbones(results)),
        "gaps": (draw_gaps, len(with_gap(results)) > 1),
    }  # fmt: skip
    return {name: draw for name, (draw, can_be_drawn) in possible.items() if can_be_drawn}


def draw_trade_offs(results: Sequence[ModelResult]) -> Figure:
    """Accuracy, with its interval, against latency, size and multiply-accumulates."""
    results = one_of_each(results)
    many = len(results) > MOST_LINES
    figure = Figure(figsize=(10, 4.2 if many else 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(TRADE_OFFS), sharey=True)
    on_front = fronts(results)
    counts = sorted({r.accuracy.top1.count for r in results if r.accuracy is not None})
    for axes, trade_off in zip(all_axes, TRADE_OFFS, strict=True):
        label, scale = COST_AXES[trade_off]
        for position, result in enumerate(results):
            cost = result.cost_in(trade_off)
            if result.accuracy is None or cost is None:
                continue
            cost *= scale
            top1 = result.accuracy.top1
            best = position in on_front[trade_off]
            many_and_beaten = many and not best
            axes.errorbar(
                cost,
                top1.accuracy * 100,
                yerr=[[(top1.accuracy - top1.low) * 100], [(top1.high - top1.accuracy) * 100]],
                fmt="." if many_and_beaten else _marker(position),
                color=BEATEN if many_and_beaten else COLOURS[position % len(COLOURS)],
                markerfacecolor=COLOURS[position % len(COLOURS)] if best else "none",
                capsize=3,
                label="on no front there" if many_and_beaten else label_of(result, results),
            )
        axes.margins(x=0.15, y=0.15)
        readable_axis(axes, axes.xaxis)
        axes.set_xlabel(label)
        for floor, whose in FLOORS:
            axes.axhline(floor * 100, color="#808080", linestyle=":", linewidth=1, zorder=0)
            if axes is all_axes[-1]:
                axes.annotate(
                    f"{floor * 100:.0f} %\n{whose}", (1, floor * 100), (3, 0),
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha="left", va="center", fontsize=7,  # beside the panel: models are in it
                )  # fmt: skip
    all_axes[0].set_ylabel("top-1 accuracy (%)")
    # A model may be missing from a panel (no latency, say) but not from the legend.
    entries = {
        label: handle
        for axes in all_axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    place: dict[str, Any] = {"loc": "outside right upper"}
    if many:
        place = {"loc": "outside lower center", "ncols": 4}
    figure.legend(entries.values(), entries.keys(), fontsize=8, **place)
    images = ", ".join(f"{number:,}" for number in counts)
    figure.suptitle(
        f"Accuracy against cost (bars: 95 % Wilson interval, n = {images} test images; "
        "filled: on the Pareto front)",
        fontsize=10,
    )
    return figure


def _marker(position: int) -> str:
    return MARKERS[(position + position // len(COLOURS)) % len(MARKERS)]


def draw_latency(results: Sequence[ModelResult]) -> Figure:
    """The distribution of single calls at batch 1, up to the 99.5th percentile."""
    shown = [result for result in one_of_each(results) if 1 in result.latency][:MOST_LINES]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, result in enumerate(shown):
        samples = np.sort(np.asarray(result.latency[1].samples_ns)) / 1e6
        label = f"{label_of(result, results)} (n = {samples.size:,})"
        cumulative(axes, samples, position, label)
    finish_cumulative(axes, "time of one call, batch 1 (ms)", "calls that took at most this (%)")
    axes.set_title("Latency in process", fontsize=10)
    return figure


def draw_throughput(results: Sequence[ModelResult]) -> Figure:
    """Images per second against batch size, with the middle half of the blocks."""
    shown = [result for result in one_of_each(results) if result.throughput][:MOST_LINES]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, result in enumerate(shown):
        rates = [
            np.asarray(cell.block_images) * 1e9 / np.asarray(cell.block_ns)
            for cell in result.throughput.values()
        ]
        middle = np.array([np.median(rate) for rate in rates])
        low = middle - [np.percentile(rate, 25) for rate in rates]
        high = np.array([np.percentile(rate, 75) for rate in rates]) - middle
        blocks = min(rate.size for rate in rates)
        axes.errorbar(
            list(result.throughput),
            middle,
            yerr=np.stack([low, high]),
            marker=MARKERS[position % len(MARKERS)],
            color=COLOURS[position % len(COLOURS)],
            linestyle=LINES[position % len(LINES)],
            capsize=3,
            label=f"{label_of(result, results)} (n = {blocks} blocks)",
        )
    sizes = sorted({size for result in shown for size in result.throughput})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    if not readable_axis(axes, axes.yaxis):
        axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size (images)")
    axes.set_ylabel("images per second")
    figure.legend(fontsize=8, loc="outside right upper")
    axes.set_title("Throughput in process (bars: middle half of the blocks)", fontsize=10)
    return figure


def draw_throughput_latency(results: Sequence[ModelResult]) -> Figure:
    """What a larger batch buys in images per second, and what it costs in waiting."""
    shown = [result for result in results if set(result.throughput) & set(result.latency)]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    labelled: list[NDArray[np.float64]] = []
    for position, result in enumerate(shown[:MOST_LINES]):
        sizes = sorted(set(result.throughput) & set(result.latency))
        times = [result.latency_ms(50, size) or 0.0 for size in sizes]
        rates = [result.images_per_second(size) or 0.0 for size in sizes]
        calls = min(len(result.latency[size].samples_ns) for size in sizes)
        axes.plot(
            times,
            rates,
            marker=MARKERS[position % len(MARKERS)],
            color=COLOURS[position % len(COLOURS)],
            linestyle=LINES[position % len(LINES)],
            label=f"{label_of(result, results)} (n ≥ {calls} calls)",
        )
        for size, time, rate in zip(sizes, times, rates, strict=True):
            place = np.log10([time, rate])
            if any(np.abs(place - other).max() < _LABELS_APART for other in labelled):
                continue
            labelled.append(place)
            axes.annotate(
                str(size), (time, rate), (0, 6), textcoords="offset points", fontsize=8, ha="center"
            )
    readable_axis(axes, axes.xaxis)
    if not readable_axis(axes, axes.yaxis):
        axes.set_ylim(bottom=0, top=1.08 * axes.get_ylim()[1])  # room for the topmost figure
    axes.margins(y=0.15)
    axes.set_xlabel("time of one call, p50 (ms)")
    axes.set_ylabel("images per second")
    figure.legend(fontsize=8, loc="outside right upper")
    axes.set_title("Throughput against latency in process (figures: batch size)", fontsize=10)
    return figure


def draw_load(results: Sequence[ModelResult]) -> Figure:
    """The distribution of response times over HTTP, up to the 99.5th percentile."""
    shown = [result for result in results if result.load is not None][:MOST_LINES]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, result in enumerate(shown):
        if result.load is not None:
            samples = result.load.response_times_ms
            users = result.load.users
            label = f"{label_of(result, results)} ({users} users, n = {samples.size:,})"
            cumulative(axes, samples, position, label)
    finish_cumulative(axes, "response time (ms)", "requests answered within this (%)")
    axes.set_title("HTTP under load, closed loop", fontsize=10)
    return figure


def draw_confusion(results: Sequence[ModelResult]) -> Figure:
    """What the most accurate model takes for what; beside it the study's models that we have."""
    right = [result for result in one_of_each(results) if result.accuracy is not None]
    repeated = [result for result in right if any(repeats(result, one) for one in STUDY)]
    shown = [right[0], *(one for one in repeated if one is not right[0])][:MOST_MATRICES]
    figure = Figure(figsize=(5.2 * len(shown) + 0.8, 5.4), layout="constrained")
    all_axes = figure.subplots(1, len(shown), squeeze=False).ravel()
    for axes, result in zip(all_axes, shown, strict=True):
        if result.accuracy is None:
            continue
        counts = np.asarray(result.accuracy.confusion)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 100
        picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        for row in range(len(LABELS)):
            for column in range(len(LABELS)):
                light = shares[row, column] < 55
                axes.text(
                    column, row, f"{shares[row, column]:.0f}", ha="center", va="center",
                    fontsize=8, color="white" if light else "black",
                )  # fmt: skip
        axes.set_xticks(range(len(LABELS)), LABELS, rotation=45, ha="right")
        axes.set_yticks(range(len(LABELS)), LABELS)
        axes.set_xlabel("predicted")
        axes.grid(visible=False)
        axes.set_title(f"{result.model}, n = {counts.sum():,} test images", fontsize=9)
    all_axes[0].set_ylabel("true")
    figure.colorbar(picture, ax=list(all_axes), label="share of the true class (%)", shrink=0.8)
    figure.suptitle("Confusion", fontsize=10)
    return figure
