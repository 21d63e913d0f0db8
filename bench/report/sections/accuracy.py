"""Sections on accuracy: differences between models, classes, confidence and damaged images."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Final

from bench.report.charts import pictures
from bench.report.formats import NOTHING, count, difference, p_value, percent, significant
from bench.report.shown import Section, Shown, by_dataset
from bench.report.tables import Block, Column, Table, words
from bench.report.verdict import comparable
from bench.rows.kinds.accuracy import RobustnessMeasurement, mean_corrupted_accuracy
from bench.rows.selection import ModelResult
from cifar10.accuracy import wilson_interval
from cifar10.paired import PairedTest
from cifar10.reliability import Reliability

MOST_PAIRED: Final = 8
"""Number of models compared with each other, the most accurate ones."""


def paired(shown: Shown) -> Iterator[Block]:
    """McNemar's test between the most accurate models of each data set."""
    pairs = [
        (first, second, test)
        for models in by_dataset(shown.subjects).values()
        for first, second in combinations(comparable(models)[:MOST_PAIRED], 2)
        if (test := first.against(second)) is not None
    ]
    if not pairs:
        return
    columns: list[Column[tuple[ModelResult, ModelResult, PairedTest]]] = [
        words("Pair", lambda pair: f"{pair[0].model} – {pair[1].model}"),
        Column("Difference, points (95 % interval)", lambda pair: difference(pair[2])),
        Column("Only the first right", lambda pair: count(pair[2].only_first)),
        Column("Only the second right", lambda pair: count(pair[2].only_second)),
        Column("p", lambda pair: p_value(pair[2].p_value)),
        words("Significant", lambda pair: "yes" if pair[2].is_real else "no"),
    ]
    yield Table(columns, pairs, "differences")
    yield (
        "McNemar's test on the same images; the binomial test is exact up to 1,000 images on "
        "which the two differ. Each pair is tested at 5 %, so among many pairs some differ by "
        "chance. The test is about these trained files, not about training the recipe again."
    )


def per_class(shown: Shown) -> Iterator[Block]:
    """Recall of each class and the confusion matrix, for each data set."""

    def recall(label: str, one: tuple[str, dict[str, float]]) -> str:
        return percent(one[1].get(label), 1)

    for models in by_dataset(shown.subjects).values():
        right = [(shown.name(m), m.accuracy.top1.per_class) for m in models if m.accuracy]
        if right:
            labels = list(right[0][1])
            first: list[Column[tuple[str, dict[str, float]]]] = [words("Model", lambda o: o[0])]
            yield Table([*first, *(Column(one, partial(recall, one)) for one in labels)], right)
    yield from _picture(pictures.confusion(shown))
    if shown.subjects:
        yield "Recall: share of each class's test images that the model gets right, in per cent."


def calibration(shown: Shown) -> Iterator[Block]:
    """Expected calibration error, and the reliability plot."""
    found = [
        (shown.name(model), model.accuracy.reliability)
        for model in shown.subjects
        if model.accuracy is not None and model.accuracy.reliability is not None
    ]
    if not found:
        return
    columns: list[Column[tuple[str, Reliability]]] = [
        words("Model", lambda one: one[0]),
        Column("ECE, points", lambda one: significant(one[1].expected_calibration_error * 100)),
        Column("Confidence minus accuracy, points", lambda o: f"{o[1].overconfidence * 100:+.1f}"),
        Column("Log loss, nats", lambda one: significant(one[1].log_loss)),
        Column("Images", lambda one: count(sum(one[1].counts))),
        Column("Bins", lambda one: str(len(one[1].counts))),
    ]
    yield Table(columns, found, "calibration")
    yield from _picture(pictures.calibration(shown))
    yield (
        "ECE, the expected calibration error (Guo et al. 2017), is the mean distance between "
        "confidence and accuracy. A positive third column means that the model is overconfident."
    )


def robustness(shown: Shown) -> Iterator[Block]:
    """Accuracy on corrupted copies."""
    tested = [model for model in shown.subjects if model.robustness]
    if not tested:
        yield "Not measured here: `cifar10 bench robustness`."
        return
    kinds = list(dict.fromkeys(one.corruption for model in tested for one in model.robustness))
    strengths = "; ".join(
        f"{one.corruption}: {one.parameter} {', '.join(f'{value:g}' for value in one.strengths)}"
        for one in tested[0].robustness
    )
    columns: list[Column[ModelResult]] = [
        words("Model", shown.name),
        Column("Undamaged, % (95 % interval)", lambda model: _undamaged(model.robustness)),
        Column("Mean of all damaged, %",
               lambda model: percent(mean_corrupted_accuracy(model.robustness), 1)),
        *(Column(f"{kind}, %", partial(_by_severity, kind)) for kind in kinds),
        Column("Images", lambda model: count(model.robustness[0].images)),
    ]  # fmt: skip
    yield Table(columns, tested, "robustness")
    yield from _picture(pictures.robustness(shown))
    yield (
        "The kinds and strengths of damage are those of CIFAR-10-C (Hendrycks and Dietterich "
        "2019), made here with a fixed seed. These are not CIFAR-10-C scores: five of its nineteen "
        f"kinds, on our own images. {strengths}. Accuracy can rise again at the strongest JPEG "
        "setting, because the images were JPEGs already and the two roundings interfere."
    )


def _undamaged(found: Sequence[RobustnessMeasurement]) -> str:
    one = found[0]
    low, high = wilson_interval(one.clean_correct, one.images)
    return f"{percent(one.clean_correct / one.images, 1)} ({percent(low, 1)}–{percent(high, 1)})"


def _by_severity(kind: str, model: ModelResult) -> str:
    found = next((one for one in model.robustness if one.corruption == kind), None)
    return " ".join(percent(share, 1) for share in found.accuracies) if found else NOTHING


def _picture(found: Block | None) -> Iterator[Block]:
    if found:
        yield found


SECTIONS: Final = (
    Section(20, "Are the differences real?", "paired tests on the same images", paired),
    Section(22, "Accuracy by class", "recall, and which classes are confused", per_class),
    Section(
        24,
        "Calibration",
        "is a confidence of 80 % right 80 % of the time?",
        calibration,
        page_only=True,  # REPORT.md has the error under "How sure the answers are"
    ),
    Section(26, "Robustness", "noise, blur, JPEG, brightness and contrast", robustness),
)
