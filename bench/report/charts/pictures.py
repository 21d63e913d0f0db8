"""The charts of the report, each from one machine's rows."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.report.charts.svg import GREY, Axis, Cell, Line, Mark, Panel, names, numbers
from bench.report.efficiency import FLOORS
from bench.report.formats import accuracy_with_interval, count, percent, significant
from bench.report.shown import Shown, by_dataset
from bench.report.tables import Picture
from bench.rows.kinds.verdicts import VerdictMeasurement
from bench.rows.row import DatasetReference
from bench.rows.selection import TRADE_OFFS, ModelResult, TradeOff, fronts
from cifar10.accuracy import wilson_interval

COST_AXES: Final[dict[TradeOff, tuple[str, float]]] = {
    "latency": ("latency of one image, ms", 1),
    "size": ("file size, MB", 1e-6),
    "MACs": ("multiply-accumulates, millions", 1e-6),
}
"""Title of each cost's axis, and the factor that turns the cost into its unit."""

LEAST_IN_BIN: Final = 20
"""Images that a bin of a calibration chart needs to be drawn."""

_POINTS: Final = 80
"""Points of a distribution's curve."""


def front(shown: Shown, trade_off: TradeOff = "latency", *, large: bool = False) -> Panel | None:
    """Accuracy against one cost, with a Pareto front for each set of images; files not in the store
    are grey."""
    models = [
        one for one in [*shown.subjects, *shown.others]
        if one.accuracy is not None and one.cost_in(trade_off) is not None
    ]  # fmt: skip
    models = next(iter(by_dataset(models).values()), [])
    if not models:
        return None
    title, scale = COST_AXES[trade_off]
    best = fronts(models)[trade_off]
    marks = []
    for place, model in enumerate(models):
        cost, accuracy = (model.cost_in(trade_off) or 0.0) * scale, model.accuracy
        if accuracy is None:
            continue
        top1 = accuracy.top1
        tip = f"{shown.name(model)}: {accuracy_with_interval(top1)} %, {significant(cost)} {title}"
        tip += "" if model.released else "; not in models/"
        marks.append(Mark(
            cost, top1.accuracy * 100, shown.look(model), tip,
            model.model if model.released or (large and place in best) else "",
            top1.low * 100, top1.high * 100, hollow=place not in best,
        ))  # fmt: skip
    steps: dict[DatasetReference | None, list[tuple[float, float]]] = {}
    for place in sorted(best, key=lambda place: (marks[place].x, marks[place].y)):
        steps.setdefault(models[place].dataset, []).append((marks[place].x, marks[place].y))
    shares = [mark.y for mark in marks]
    accuracies = numbers("top-1 accuracy, %", [*shares, min(100, max(shares) + 3)])
    floors = [
        Line([(min(m.x for m in marks), floor * 100), (max(m.x for m in marks), floor * 100)],
             dashed=True, label=f"{percent(floor, 0)} %: {name}" if large else "")
        for floor, name in FLOORS if accuracies.low < floor * 100 < accuracies.high
    ]  # fmt: skip
    costs = numbers(title, [mark.x for mark in marks])
    heading = "" if large else f"Accuracy and {trade_off}"
    size = (460, 330) if large else (340, 230)
    lines = [*floors, *(Line(found, step=True) for found in steps.values())]
    return Panel(heading, costs, accuracies, marks, lines, (), *size)


def trade_offs(shown: Shown) -> Picture | None:
    """Accuracy against all three costs."""
    panels = [panel for name in TRADE_OFFS if (panel := front(shown, name)) is not None]
    text = (
        "Accuracy against latency, file size and multiply-accumulates. A line is a Pareto front of "
        "models measured on the same images: none of them is both more accurate and cheaper than "
        "one on it. Grey: measured, not in `models/`. Dashed: the accuracy floors of MLPerf Tiny "
        "(85 %) and DAWNBench (94 %)."
    )
    return Picture("trade_offs", text, panels) if panels else None


def latency(shown: Shown) -> Picture | None:
    """Distribution of the times of single calls."""
    samples = [
        (model, np.sort(np.asarray(model.latency[1].samples_ns)) / 1e6)
        for model in shown.drawn
        if 1 in model.latency
    ]
    text = "Share of single calls that took at most this long, up to the 99.5th percentile."
    return _distributions("latency", text, "time of one call, ms", shown, samples)


def load(shown: Shown) -> Picture | None:
    """Distribution of the response times over HTTP."""
    samples = [(model, model.load.response_times_ms) for model in shown.drawn if model.load]
    text = (
        "Share of HTTP requests answered within this time in a closed loop at full speed, up to "
        "the 99.5th percentile."
    )
    return _distributions("load", text, "response time, ms", shown, samples)


def throughput(shown: Shown) -> Picture | None:
    """Images per second against the time of one call, batch size by batch size."""
    marks, lines = [], []
    for model in shown.drawn:
        points = []
        for size in sorted(set(model.throughput) & set(model.latency)):
            ms, rate = model.latency_ms(50, size) or 0.0, model.images_per_second(size) or 0.0
            points.append((ms, rate))
            tip = f"{model.model}, batch {size}: {count(rate)} images/s, {significant(ms)} ms"
            marks.append(Mark(ms, rate, shown.look(model), tip, str(size)))
        lines.append(Line(points, shown.look(model)))
    if not marks:
        return None
    panel = Panel(
        "", numbers("time of one call, p50, ms", [mark.x for mark in marks]),
        numbers("images/s", [mark.y for mark in marks], low=0), marks, lines, (), 520, 300,
    )  # fmt: skip
    text = (
        "What a larger batch gains in images per second, and what it costs in time per call; the "
        "numbers are batch sizes."
    )
    return Picture("throughput", text, [panel], _legend(shown, shown.drawn))


def confusion(shown: Shown) -> Picture | None:
    """Confusion matrix of the most accurate released model of each data set."""
    panels = []
    for models in by_dataset(shown.subjects).values():
        best = next((one for one in models if one.accuracy is not None), None)
        if best is None or best.accuracy is None:
            continue
        labels = list(best.accuracy.top1.per_class)
        counts = np.asarray(best.accuracy.confusion)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        cells = [
            Cell(column, row, float(shares[row, column]), f"{shares[row, column] * 100:.0f}")
            for row in range(len(labels))
            for column in range(len(labels))
            if counts[row, column]
        ]
        title = f"{best.model}: true class (rows), predicted class (columns)"
        panels.append(Panel(title, names(labels, upwards=True), names(labels), (), (), cells,
                            460, 360))  # fmt: skip
    text = "Share of each true class (rows) that is predicted as each class (columns), in per cent."
    return Picture("confusion", text, panels) if panels else None


def calibration(shown: Shown) -> Picture | None:
    """Share of correct answers against confidence, one panel a model."""
    panels = []
    for model in shown.drawn:
        found = model.accuracy.reliability if model.accuracy else None
        if found is None:
            continue
        marks = []
        for confidence, share, correct, images in zip(
            found.confidences, found.accuracies, found.correct, found.counts, strict=True
        ):
            if confidence is None or share is None or images < LEAST_IN_BIN:
                continue
            low, high = wilson_interval(correct, images)
            tip = f"{count(images)} answers given with {percent(confidence, 0)} % on average: "\
                  f"{percent(share, 1)} % right"  # fmt: skip
            marks.append(Mark(confidence * 100, share * 100, shown.look(model), tip, "",
                              low * 100, high * 100))  # fmt: skip
        error = significant(found.expected_calibration_error * 100)
        panels.append(Panel(
            f"{model.model} (ECE {error} points)", _shares("confidence, %"), _shares("right, %"),
            marks, [Line([(0, 0), (100, 100)], dashed=True)],
        ))  # fmt: skip
    text = (
        "Share of right answers against the confidence they were given with; on the dashed line "
        f"confidence can be taken at its word. Bins of at least {LEAST_IN_BIN} images, 95 % Wilson "
        "intervals."
    )
    return Picture("calibration", text, panels) if panels else None


def coverage(shown: Shown, rows: Sequence[tuple[VerdictMeasurement, str]]) -> Picture | None:
    """Share of right answers among the most confident ones, one panel for each set of images.

    Args:
        shown: the machine.
        rows: each row with the name of its images; rows of ``auto`` are not drawn.
    """
    looks = {model.model: shown.look(model) for model in shown.drawn}
    panels = []
    for images in dict.fromkeys(name for _, name in rows):
        drawn = [one for one, name in rows if name == images and one.asked in looks]
        curves = {
            one.asked: [(share * 100, right * 100) for share, right in one.coverage]
            for one in drawn
        }
        marks = [
            Mark(x, y, looks[model], f"{model}: of the surest {x:.0f} % {y:.1f} % are right")
            for model, points in curves.items()
            for x, y in points[3::4]
        ]
        if marks:
            panels.append(Panel(
                images, numbers("most confident answers, %", [0, 100], low=0, high=100, log=False),
                numbers("right, %", [y for points in curves.values() for _, y in points], high=100,
                        log=False),
                marks, [Line(points, looks[model]) for model, points in curves.items()],
            ))  # fmt: skip
    text = (
        "Coverage: share of right answers among the most confident ones, from the surest 5 % to "
        "all. The higher the line, the better confidence tells right answers from wrong ones."
    )
    asked = {one.asked for one, _ in rows}
    legend = _legend(shown, [model for model in shown.drawn if model.model in asked])
    return Picture("coverage", text, panels, legend) if panels else None


def robustness(shown: Shown) -> Picture | None:
    """Accuracy on damaged copies, one panel a kind of damage."""
    tested = [model for model in shown.drawn if model.robustness]
    kinds = list(dict.fromkeys(one.corruption for model in tested for one in model.robustness))
    panels = []
    for kind in kinds:
        marks, lines = [], []
        for model in tested:
            found = next((one for one in model.robustness if one.corruption == kind), None)
            if found is None:
                continue
            correct = (found.clean_correct, *found.correct)
            points = [(float(n), one / found.images * 100) for n, one in enumerate(correct)]
            lines.append(Line(points, shown.look(model)))
            for (severity, share), one in zip(points, correct, strict=True):
                low, high = wilson_interval(one, found.images)
                tip = f"{model.model}, {kind} at severity {severity:.0f}: {share:.1f} %"
                marks.append(
                    Mark(severity, share, shown.look(model), tip, "", low * 100, high * 100)
                )
        severities = Axis("severity (0: undamaged)", -0.3, 5.5,
                          tuple((float(n), str(n)) for n in range(6)))  # fmt: skip
        panels.append(Panel(kind, severities, _shares("accuracy, %"), marks, lines))
    text = "Accuracy on damaged copies of the same images, by kind and severity of the damage."
    return Picture("robustness", text, panels, _legend(shown, tested)) if panels else None


def training(shown: Shown) -> Picture | None:
    """Accuracy by epoch, one panel a training."""
    panels = []
    for model in shown.drawn:
        found = model.training
        if found is None or not found.epochs or model.precision not in ("fp32", None):
            continue
        look = shown.look(model)
        train = [(n, one.accuracy * 100) for n, one in enumerate(found.epochs, 1)]
        validation = [(n, one.validation_accuracy * 100) for n, one in enumerate(found.epochs, 1)]
        kept = [one for one in validation if one[0] == found.best_epoch]
        marks = [
            Mark(n, share, look, f"{model.model}: epoch {n}, {share:.2f} %", "kept")
            for n, share in kept
        ]
        every = [share for _, share in [*train, *validation]]
        panels.append(Panel(
            model.model, numbers("epoch", [1, len(train)], low=1, high=len(train), log=False),
            numbers("accuracy, %", every), marks,
            [Line(train, GREY, dashed=True), Line(validation, look)],
        ))  # fmt: skip
    text = (
        "Accuracy by epoch: solid on validation images, dashed on training images while it "
        "trained. The mark is the epoch whose weights were kept."
    )
    return Picture("training", text, panels) if panels else None


def gaps(shown: Shown, models: Sequence[ModelResult]) -> Picture | None:
    """Training and test accuracy of each model."""
    marks, lines = [], []
    titles: list[str] = []
    for model in models:
        accuracy = model.accuracy
        if accuracy is None or accuracy.card_train_accuracy is None:
            continue
        at, look = len(titles), shown.look(model)
        test, train = accuracy.top1.accuracy * 100, accuracy.card_train_accuracy * 100
        titles.append(model.model)
        lines.append(Line([(test, at), (train, at)], look))
        marks += [Mark(test, at, look, f"{model.model}: test {test:.2f} %"),
                  Mark(train, at, look, f"{model.model}: training images {train:.2f} %",
                       f"{train - test:+.1f}", hollow=True)]  # fmt: skip
    if not titles:
        return None
    panel = Panel("", numbers("accuracy, %", [mark.x for mark in marks], log=False), names(titles),
                  marks, lines, (), 520, 60 + 20 * len(titles))  # fmt: skip
    text = (
        "Accuracy on test images (filled) and on training images (hollow), and the gap in points."
    )
    return Picture("gaps", text, [panel])


def _legend(shown: Shown, models: Sequence[ModelResult]) -> list[tuple[int, str]]:
    return [(shown.look(model), model.model) for model in models]


def _shares(title: str) -> Axis:
    return numbers(title, [0, 100], low=0, high=100, log=False)


def _distributions(
    name: str,
    text: str,
    title: str,
    shown: Shown,
    samples: Sequence[tuple[ModelResult, NDArray[np.float64]]],
) -> Picture | None:
    """Cumulative distributions, one panel a model, on one axis of time."""
    if not samples:
        return None
    ends = [float(end) for _, one in samples for end in np.percentile(one, [0, 99.5])]
    panels = []
    for model, one in samples:
        levels = np.linspace(0, 99.5, _POINTS)
        curve = [(float(x), float(y)) for x, y in
                 zip(np.percentile(one, levels), levels, strict=True)]  # fmt: skip
        marks = [
            Mark(float(x), level, shown.look(model), f"{model.model}: p{level} {significant(x)} ms",
                 f"p{level} {significant(x)} ms")
            for level, x in ((level, float(np.percentile(one, level))) for level in (50, 90, 99))
        ]  # fmt: skip
        panels.append(Panel(
            f"{model.model} (n = {count(one.size)})", numbers(title, ends), _shares("share, %"),
            marks, [Line(curve, shown.look(model))],
        ))  # fmt: skip
    return Picture(name, text, panels)
