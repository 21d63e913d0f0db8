"""Pictures of calibration, robustness and training."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.style import (
    COLOURS,
    INK,
    LINES,
    MARKED_EPOCHS,
    MARKERS,
    MOST_LINES,
    label_of,
    readable_axis,
)
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult
from cifar10.accuracy import wilson_interval

LEAST_IN_BIN: Final = 20
"""With fewer images a bin's share says nothing; they still count in the error."""


def draw_calibration(results: Sequence[ModelResult]) -> Figure:
    """Reliability: the share right in each bin of confidence, and how many fall into it."""
    shown = [one for one in one_of_each(results) if one.accuracy and one.accuracy.reliability]
    shown = shown[:MOST_LINES]
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, alpha=0.6, label="perfectly calibrated")
    for position, result in enumerate(shown):
        found = result.accuracy.reliability if result.accuracy else None
        if found is None:
            continue
        total = sum(found.counts)
        bins = [
            (confidence * 100, share * 100, wilson_interval(correct, count))
            for confidence, share, correct, count in zip(
                found.confidences, found.accuracies, found.correct, found.counts, strict=True
            )
            if confidence is not None and share is not None and count >= LEAST_IN_BIN
        ]
        x, y = [one[0] for one in bins], [one[1] for one in bins]
        error = [
            [max(0.0, share - low * 100) for _, share, (low, _) in bins],
            [max(0.0, high * 100 - share) for _, share, (_, high) in bins],
        ]
        colour, line = COLOURS[position % len(COLOURS)], LINES[position % len(LINES)]
        ece = found.expected_calibration_error * 100
        axes.errorbar(
            x, y, yerr=error, color=colour, linestyle=line, capsize=2,
            marker=MARKERS[position % len(MARKERS)], markersize=4,
            label=f"{label_of(result, results)} (ECE {ece:.1f} points, n = {total:,})",
        )  # fmt: skip
        edges = np.linspace(0, 100, len(found.counts) + 1)
        shares = np.asarray(found.counts) / total * 100
        below.stairs(shares, edges, color=colour, linestyle=line, baseline=None)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_ylabel("right (%)")
    below.set_ylim(bottom=0)
    below.set_ylabel("images (%)")
    below.set_xlabel("confidence of the answer (%)")
    figure.legend(fontsize=8, loc="outside right upper")
    axes.set_title(
        f"Calibration (bars: 95 % Wilson interval; bins of at least {LEAST_IN_BIN} images)",
        fontsize=10,
    )
    return figure


def draw_robustness(results: Sequence[ModelResult]) -> Figure:
    """Accuracy against severity, one panel for each corruption; severity 0 is undamaged."""
    shown = [result for result in results if result.robustness][:MOST_LINES]
    kinds = list(dict.fromkeys(one.corruption for result in shown for one in result.robustness))
    columns = min(3, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(10, 2.6 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    for panel, kind in zip(panels, kinds, strict=False):
        for position, result in enumerate(shown):
            found = next((one for one in result.robustness if one.corruption == kind), None)
            if found is None:
                continue
            correct = (found.clean_correct, *found.correct)
            shares = np.asarray(correct) / found.images * 100
            intervals = np.asarray([wilson_interval(one, found.images) for one in correct]) * 100
            severities = range(len(correct))
            panel.errorbar(
                severities,
                shares,
                yerr=[shares - intervals[:, 0], intervals[:, 1] - shares],
                color=COLOURS[position % len(COLOURS)],
                linestyle=LINES[position % len(LINES)],
                marker=MARKERS[position % len(MARKERS)],
                markersize=4,
                capsize=2,
                label=f"{label_of(result, results)} (n = {found.images:,})",
            )
        panel.set_title(kind, fontsize=9)
        panel.set_xticks(range(1 + max(len(one.correct) for m in shown for one in m.robustness)))
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("severity")
    for row in range(rows):
        panels[row * columns].set_ylabel("top-1 accuracy (%)")
    panels[0].set_ylim(0, 100)
    entries = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), fontsize=8, loc="outside lower center", ncols=3)
    figure.suptitle(
        "Accuracy on damaged copies (severity 0: undamaged; bars: 95 % Wilson interval)",
        fontsize=10,
    )
    return figure


def draw_training(results: Sequence[ModelResult]) -> Figure:
    """Training and validation accuracy, epoch by epoch; a ring marks the weights kept."""
    by_name = {
        one.model: one
        for one in one_of_each(results)
        if one.training
        and one.training.epochs
        and (one.cost is None or one.cost.precision == "fp32")
    }
    shown = list(by_name.values())[:MOST_LINES]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, result in enumerate(shown):
        if result.training is None:
            continue
        epochs = np.arange(1, len(result.training.epochs) + 1)
        colour = COLOURS[position % len(COLOURS)]
        validation = [one.validation_accuracy * 100 for one in result.training.epochs]
        axes.plot(
            epochs, [one.accuracy * 100 for one in result.training.epochs],
            color=colour, linestyle="--", label=f"{result.model}, training (while it learned)",
        )  # fmt: skip
        axes.plot(
            epochs, validation, color=colour,
            marker=MARKERS[position % len(MARKERS)] if len(validation) < MARKED_EPOCHS else None,
            markersize=4, label=f"{result.model}, validation",
        )  # fmt: skip
        best = result.training.best_epoch
        if best <= len(validation):
            axes.plot(
                best, validation[best - 1], marker="o", markersize=11, color=colour,
                markerfacecolor="none", linestyle="",
            )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    readable_axis(axes, axes.xaxis)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 accuracy (%)")
    figure.legend(fontsize=8, loc="outside right upper")
    axes.set_title("Training (ring: the weights kept; one run each)", fontsize=10)
    return figure
