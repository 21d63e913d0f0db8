"""Sections on how models were trained: accuracies, convergence, overfitting and seeds."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import Final

from bench.report.charts import pictures
from bench.report.formats import NOTHING, count, percent, points, significant
from bench.report.shown import Section, Shown
from bench.report.study.front import repeats
from bench.report.study.reference import STUDY
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.cost import TrainingMeasurement
from bench.rows.seeds import SeedGroup, one_of_each, seed_groups
from bench.rows.selection import ModelResult

CONVERGED: Final = 0.99
"""Share of its best validation accuracy from which a training counts as converged."""

_Trained = tuple[ModelResult, TrainingMeasurement]


def training(shown: Shown) -> Iterator[Block]:
    """Length, result and convergence of each training."""
    trained = [
        (model, model.training)
        for model in one_provider(shown.subjects)
        if model.training is not None and model.precision in ("fp32", None)
    ]
    if not trained:
        return
    columns: list[Column[_Trained]] = [
        words("Model", lambda one: one[0].model),
        Column("Epochs", lambda one: str(len(one[1].seconds_per_epoch))),
        Column("Kept", lambda one: str(one[1].best_epoch)),
        Column("Train, %", lambda one: percent(one[1].train_accuracy)),
        Column("Validation, %", lambda one: percent(one[1].validation_accuracy)),
        Column("Test, %", lambda one: percent(one[1].test_accuracy)),
        Column("Minutes", lambda one: significant(sum(one[1].seconds_per_epoch) / 60)),
        Column("Seconds per epoch (range)", lambda one: _seconds(one[1]), extra=True),
        Column(f"Epoch that reached {percent(CONVERGED, 0)} % of the best", _converged),
        words("Hardware", _hardware, extra=True),
    ]
    yield Table(columns, trained, "training")
    found = pictures.training(shown)
    if found is not None:
        yield found
    yield (
        "Accuracies are those of the kept weights, from the card; seconds and epochs are from "
        "`history.csv`. Where the features of a frozen base were computed once and stored, an "
        "epoch trains the head alone."
    )
    phases = [line for model, record in trained for line in _phases(model.model, record)]
    if phases:
        yield "Trainings of several phases, each from the best weights of the one before:"
        of_phases: list[Column[list[str]]] = [
            words("Model", lambda line: line[0]),
            words("Phase", lambda line: line[1]),
            Column("Epochs", lambda line: line[2]),
            Column("Best validation in it, %", lambda line: line[3]),
            Column("Gain over the phases before, points", lambda line: line[4]),
        ]
        yield Table(of_phases, phases, "phases")


def overfitting(shown: Shown) -> Iterator[Block]:
    """Train minus test accuracy."""
    models = [
        model
        for model in one_provider(one_of_each(shown.models))
        if model.accuracy is not None
        and model.accuracy.card_train_accuracy is not None
        and model.precision in ("fp32", None)
    ]
    if not models:
        return
    columns: list[Column[ModelResult]] = [
        words("Model", lambda one: one.model),
        Column("Train, %",
               lambda one: percent(one.accuracy.card_train_accuracy if one.accuracy else None)),
        Column("Test, %", lambda one: percent(one.share_right)),
        Column("Gap, points", lambda one: points(
            (one.accuracy.card_train_accuracy or 0.0) - one.accuracy.top1.accuracy
            if one.accuracy else None)),
        Column("The study's gap, points", _study_gap),
    ]  # fmt: skip
    yield Table(columns, models, "overfitting")
    found = pictures.gaps(shown, models)
    if found is not None:
        yield found
    yield (
        "Gap: accuracy on the training images, without augmentation, minus accuracy on the test "
        "images, of the kept weights. Grey: not in `models/`."
    )


def seeds(shown: Shown) -> Iterator[Block]:
    """Mean and spread of each recipe that was trained several times."""
    groups = [group for group in seed_groups(shown.models) if group.deviation is not None]
    if not groups:
        return
    columns: list[Column[SeedGroup]] = [
        words("Recipe", lambda group: group.recipe),
        words("Precision", lambda group: group.precision),
        Column("Seeds", lambda group: str(len(group.models))),
        Column("Test, % (mean ± s.d.)", lambda g: f"{percent(g.mean)} ± {percent(g.deviation)}"),
        Column("Range, points", lambda one: points(max(one.accuracies) - min(one.accuracies))),
        words("Each, %", _each_seed),
    ]
    yield Table(columns, groups, "seeds")
    yield (
        "The same recipe trained with several seeds. The standard deviation (n − 1) is between "
        "trainings; the Wilson interval of one training does not cover it."
    )


def one_provider(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Return each model once, whatever executed it."""
    return list({one.model: one for one in reversed(models)}.values())[::-1]


def _each_seed(group: SeedGroup) -> str:
    pairs = zip(group.models, group.accuracies, strict=True)
    return ", ".join(
        f"{model.cost.seed if model.cost else NOTHING}: {percent(accuracy)}"
        for model, accuracy in pairs
    )


def _hardware(one: _Trained) -> str:
    return one[0].cost.training_hardware if one[0].cost else NOTHING


def _seconds(found: TrainingMeasurement) -> str:
    values = found.seconds_per_epoch
    if not values:
        return NOTHING
    low, high = significant(min(values)), significant(max(values))
    return f"{significant(median(values))} ({low}–{high})"


def _converged(one: _Trained) -> str:
    curve = one[1].validation_curve
    wanted = CONVERGED * max(curve, default=0.0)
    return next((str(n) for n, value in enumerate(curve, start=1) if value >= wanted), NOTHING)


def _phases(name: str, found: TrainingMeasurement) -> list[list[str]]:
    """Return the cells of each phase; nothing for a training of one phase."""
    phases = [list(epochs) for _, epochs in groupby(found.epochs, key=lambda epoch: epoch.phase)]
    if len(phases) < 2:
        return []
    lines = []
    before: float | None = None
    for epochs in phases:
        best = max(epoch.validation_accuracy for epoch in epochs)
        gained = NOTHING if before is None else f"{(best - before) * 100:+.2f}"
        lines.append([name, epochs[0].phase, count(len(epochs)), percent(best), gained])
        before = best if before is None else max(before, best)
    return lines


def _study_gap(model: ModelResult) -> str:
    study = next((one for one in STUDY if repeats(model, one)), None)
    if study is not None and study.gap_points is not None:
        return f"{study.gap_points:.1f}"
    if study is None or study.train_percent is None or study.test_percent is None:
        return NOTHING
    return f"{study.train_percent - study.test_percent:.1f}"


SECTIONS: Final = (
    Section(60, "Training", "epochs, time and accuracy of the kept weights", training),
    Section(62, "Overfitting", "accuracy on training images against test images", overfitting),
    Section(64, "Seeds", "the same recipe trained several times", seeds),
)
