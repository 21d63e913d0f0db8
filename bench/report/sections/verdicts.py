"""Section on verdicts: how often each is given and right, and what confidence is worth."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.report.charts import pictures
from bench.report.formats import NOTHING, count, percent, significant
from bench.report.shown import CIFAR10, Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.verdicts import COVERAGE_STEPS, VerdictMeasurement
from bench.rows.row import Row
from cifar10.accuracy import wilson_interval
from cifar10.released import AUTO
from cifar10.verdict import VERDICTS, Verdict

_MOST: Final = 20
"""Rows of the summary in ``REPORT.md``."""

_SUREST: Final = 16
"""Step of the coverage curve in the summary: the most confident 80 %."""

_ABOUT: Final = (
    "A verdict's column: share of the images of the model's classes that get it and, in brackets, "
    "how many of all answers with it are right; `none` is right for a picture of none of the "
    "classes. The thresholds are the card's; † marks images some of which chose them. AUROC: the "
    "classes against pictures of none. ECE: expected calibration error in {bins} equal bins (Guo "
    "et al. 2017). `auto` is the pair of models that the service asks by default."
)

_Given = tuple[Row[VerdictMeasurement], Verdict]


def verdicts(shown: Shown) -> Iterator[Block]:
    """Summary by model and images, then each verdict, and the coverage curves."""
    rows = verdict_rows(shown)
    if not rows:
        yield "Not measured here: `cifar10 bench verdicts`."
        return
    columns: list[Column[Row[VerdictMeasurement]]] = [
        words("Model", lambda row: row.measurement.asked),
        words("Images", images_of),
        Column("Of the classes + of none", _counts),
        *(Column(f"`{one}`, % (right, %)", partial(_share_and_right, one)) for one in VERDICTS),
        Column("Of none: `sure`, %", lambda r: percent(r.measurement.share_of_others("sure"), 1)),
        Column("AUROC", lambda row: significant(row.measurement.auroc)),
        Column("Surest 80 %: right, %", partial(_right_at, _SUREST)),
        Column("ECE, points", _calibration_error),
    ]
    yield Table(columns, rows, top=_MOST)
    yield _ABOUT.format(bins=len(rows[0].measurement.reliability.counts))
    details: list[Column[_Given]] = [
        words("Model", lambda one: one[0].measurement.asked),
        words("Images", lambda one: images_of(one[0])),
        words("Verdict", lambda one: one[1]),
        Column("Of the classes", lambda o: count(o[0].measurement.counts[o[1]].of_classes)),
        Column("Of none", lambda one: count(one[0].measurement.counts[one[1]].of_others)),
        Column("Right", lambda one: count(one[0].measurement.given_and_right(one[1])[1])),
        Column("Right, % (95 % interval)", _right_with_interval),
    ]
    yield Table(details, [(row, verdict) for row in rows for verdict in VERDICTS], "verdicts")
    yield Table(
        [
            Column("Surest, %", lambda step: percent(step / COVERAGE_STEPS, 0)),
            *(
                Column(f"{row.measurement.asked}, {images_of(row)}: right, %", partial(_at, row))
                for row in rows
            ),
        ],
        range(1, COVERAGE_STEPS + 1),
        "coverage",
    )
    found = pictures.coverage(shown, [(row.measurement, images_of(row)) for row in rows])
    if found is not None:
        yield found


def verdict_rows(shown: Shown) -> list[Row[VerdictMeasurement]]:
    """Return the rows of the files shown: tiles before photographs, ``auto`` first, then in the
    models' order. Rows of ``auto`` whose small model is another file now are left out."""
    order = [(model.model, model.digest) for model in shown.subjects]
    found = [
        row
        for row in shown.rows(VerdictMeasurement)
        if (row.model, row.digest) in order and row.measurement.small in (None, *order)
    ]
    return sorted(
        found,
        key=lambda row: (
            row.measurement.dataset != CIFAR10,
            row.measurement.asked != AUTO,
            order.index((row.model, row.digest)),
            row.measurement.images == "all",
        ),
    )


def images_of(row: Row[VerdictMeasurement]) -> str:
    """Return which images a row is about."""
    found = row.measurement
    variant = row.dataset.variant if row.dataset and found.dataset == CIFAR10 else found.dataset
    return f"{variant}, {found.images}{' †' if found.chose_thresholds else ''}"


def _counts(row: Row[VerdictMeasurement]) -> str:
    found = row.measurement
    others = f" + {count(found.of_others)}" if found.of_others else ""
    return f"{count(found.of_classes)}{others}"


def _share_and_right(verdict: Verdict, row: Row[VerdictMeasurement]) -> str:
    given, right = row.measurement.given_and_right(verdict)
    share = percent(row.measurement.share(verdict), 1)
    return f"{share} ({percent(right / given, 1)})" if given else share


def _right_with_interval(one: _Given) -> str:
    given, right = one[0].measurement.given_and_right(one[1])
    if not given:
        return NOTHING
    low, high = wilson_interval(right, given)
    return f"{percent(right / given, 1)} ({percent(low, 1)}–{percent(high, 1)})"


def _right_at(step: int, row: Row[VerdictMeasurement]) -> str:
    return percent(row.measurement.coverage[step - 1][1], 1)


def _at(row: Row[VerdictMeasurement], step: int) -> str:
    return _right_at(step, row)


def _calibration_error(row: Row[VerdictMeasurement]) -> str:
    return significant(row.measurement.reliability.expected_calibration_error * 100)


SECTIONS: Final = (
    Section(25, "How sure the answers are", "verdicts, confidence and coverage", verdicts),
)
