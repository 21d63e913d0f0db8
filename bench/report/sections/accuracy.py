"""Sections on accuracy: differences between models, classes, confidence and damaged images."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Final

from bench.report.formats import NOTHING, count, difference, p_value, percent, significant
from bench.report.recommend import comparable
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Picture, Table, words
from bench.rows.kinds.accuracy import RobustnessMeasurement, mean_corrupted_accuracy
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult
from cifar10.accuracy import wilson_interval
from cifar10.labels import LABELS
from cifar10.paired import PairedTest
from cifar10.reliability import Reliability

MOST_PAIRED: Final = 8
"""Number of models compared with each other, the most accurate ones."""


def paired(shown: Shown) -> Iterator[Block]:
    """McNemar's test between the most accurate models."""
    best = one_of_each(comparable(shown.models))[:MOST_PAIRED]
    pairs = [
        (first, second, test)
        for first, second in combinations(best, 2)
        if (test := first.against(second)) is not None
    ]
    if not pairs:
        return
    yield (
        "McNemar's test on the same images, exact binomial up to 1,000 images that differ. Each "
        "pair is tested at 5 %; with many pairs some will seem to differ by chance. It is about "
        "these trained files, not about training the recipe again."
    )
    columns: list[Column[tuple[ModelResult, ModelResult, PairedTest]]] = [
        words("Pair", lambda pair: f"{pair[0].model} – {pair[1].model}"),
        Column("Difference, points (95 % interval)", lambda pair: difference(pair[2])),
        Column("Only the first right", lambda pair: count(pair[2].only_first)),
        Column("Only the second right", lambda pair: count(pair[2].only_second)),
        Column("p", lambda pair: p_value(pair[2].p_value)),
        Column("Real?", lambda pair: "yes" if pair[2].is_real else "cannot be told"),
    ]
    yield Table(columns, pairs)


def per_class(shown: Shown) -> Iterator[Block]:
    """Recall of each class."""
    right = [
        (shown.name(model), model.accuracy.top1.per_class)
        for model in shown.models
        if model.accuracy is not None
    ]

    def recall(label: str, one: tuple[str, dict[str, float]]) -> str:
        return percent(one[1].get(label), 1)

    if right:
        yield "The share of each class's test images that the model gets right, in per cent."
        columns: list[Column[tuple[str, dict[str, float]]]] = [words("Model", lambda one: one[0])]
        yield Table([*columns, *(Column(label, partial(recall, label)) for label in LABELS)], right)


def calibration(shown: Shown) -> Iterator[Block]:
    """Expected calibration error, and the reliability plot."""
    found = [
        (shown.name(model), model.accuracy.reliability)
        for model in shown.models
        if model.accuracy is not None and model.accuracy.reliability is not None
    ]
    if not found:
        return
    yield (
        "Of the answers given with 80 % confidence, are 80 % right? The expected calibration error "
        "(ECE; Guo et al. 2017) is the mean distance of the two. Above zero in the third column "
        "the model promises too much."
    )
    columns: list[Column[tuple[str, Reliability]]] = [
        words("Model", lambda one: one[0]),
        Column("ECE, points", lambda one: significant(one[1].expected_calibration_error * 100)),
        Column("Confidence minus accuracy, points", lambda o: f"{o[1].overconfidence * 100:+.1f}"),
        Column("Log loss, nats", lambda one: significant(one[1].log_loss)),
        Column("Images", lambda one: count(sum(one[1].counts))),
        Column("Bins", lambda one: str(len(one[1].counts))),
    ]
    yield Table(columns, found)
    yield Picture("calibration")


def robustness(shown: Shown) -> Iterator[Block]:
    """Accuracy on corrupted copies."""
    tested = [model for model in shown.models if model.robustness]
    if not tested:
        yield "Not measured here. `cifar10 bench robustness` does it."
        return
    kinds = list(dict.fromkeys(one.corruption for model in tested for one in model.robustness))
    strengths = [
        f"{one.corruption}: {one.parameter} {', '.join(f'{value:g}' for value in one.strengths)}"
        for one in tested[0].robustness
    ]
    yield (
        f"Top-1 in per cent on copies damaged at severities 1 to {len(tested[0].robustness[0].correct)}, "  # noqa: E501
        "made here, seeded, with the kinds and strengths of CIFAR-10-C (Hendrycks and Dietterich "
        "2019); not CIFAR-10-C scores, because five of its nineteen kinds and the images are our "
        f"own. {'; '.join(strengths)}. Recompressing an image that was a JPEG already need not get "
        "worse with every step of quality: the two grids of rounding interfere."
    )
    columns: list[Column[ModelResult]] = [
        words("Model", shown.name),
        Column("Undamaged, % (95 % interval)", lambda model: _undamaged(model.robustness[0])),
        Column("Mean of all damaged, %", lambda m: percent(mean_corrupted_accuracy(m.robustness), 1)),  # noqa: E501
        *(Column(kind, partial(_by_severity, kind)) for kind in kinds),
        Column("Images", lambda model: count(model.robustness[0].images)),
    ]  # fmt: skip
    yield Table(columns, tested)
    yield Picture("robustness")


def _undamaged(one: RobustnessMeasurement) -> str:
    low, high = wilson_interval(one.clean_correct, one.images)
    share = one.clean_correct / one.images
    return f"{percent(share, 1)} ({percent(low, 1)}–{percent(high, 1)})"


def _by_severity(kind: str, model: ModelResult) -> str:
    found = next((one for one in model.robustness if one.corruption == kind), None)
    return " ".join(percent(share, 1) for share in found.accuracies) if found else NOTHING


SECTIONS: Final = (
    Section(170, "Are the differences real?", paired),
    Section(180, "Accuracy by class", per_class),
    Section(190, "Confusion", lambda shown: [Picture("confusion")]),
    Section(200, "Calibration", calibration),
    Section(210, "Robustness", robustness, "robustness"),
)
