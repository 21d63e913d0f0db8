"""Sections on how models were trained: accuracies, convergence, overfitting and seeds."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from bench.report.formats import NOTHING, count, percent, points, significant
from bench.report.shown import Section, Shown
from bench.report.study.front import repeats
from bench.report.study.plots import with_gap
from bench.report.study.reference import STUDY
from bench.report.tables import Block, Column, Picture, Table, words
from bench.rows.kinds.cost import TrainingMeasurement
from bench.rows.seeds import SeedGroup, one_of_each, seed_groups
from bench.rows.selection import ModelResult
from bench.statistics.samples import median

CONVERGED: Final = 0.99
"""Share of its best validation accuracy from which a training counts as converged."""

_Trained = tuple[ModelResult, TrainingMeasurement]


def training(shown: Shown) -> Iterator[Block]:
    """What training took and gave."""
    once = {model.model: model for model in reversed(shown.models)}
    trained = [(m, m.training) for m in reversed(once.values()) if m.training is not None]
    if not trained:
        return
    yield "Accuracies of the kept weights, from the card."
    columns: list[Column[_Trained]] = [
        words("Model", lambda one: one[0].model),
        Column("Epochs", lambda one: str(len(one[1].seconds_per_epoch))),
        Column("Kept", lambda one: str(one[1].best_epoch)),
        Column("Train, %", lambda one: percent(one[1].train_accuracy)),
        Column("Validation, %", lambda one: percent(one[1].validation_accuracy)),
        Column("Test, %", lambda one: percent(one[1].test_accuracy)),
        Column("Minutes", lambda one: significant(sum(one[1].seconds_per_epoch) / 60)),
        Column("Hardware", _hardware),
    ]
    yield Table(columns, trained)
    without = [
        f"`{model.model}`"
        for model, found in trained
        if not found.epochs and not model.has_random_weights
    ]
    if without:
        yield (
            f"No curve for {', '.join(without)}: the store holds no `history.csv` of it, only "
            "the card."
        )
    yield Picture("training")


def convergence(shown: Shown) -> Iterator[Block]:
    """Seconds per epoch, and when a training converged."""
    trained = [(m, m.training) for m in _one_each(shown.models) if m.training and m.training.epochs]
    if not trained:
        return
    yield (
        "From `history.csv`. Where a frozen base was run once and its features were stored, an "
        "epoch is one of the head alone. Validation is of the network as it is trained: one that "
        "is kept with the mirror image (`compact`) has another in its card."
    )
    columns: list[Column[_Trained]] = [
        words("Model", lambda one: one[0].model),
        Column("Seconds per epoch, median", lambda o: significant(median(o[1].seconds_per_epoch))),
        Column("Range", lambda one: _range(one[1].seconds_per_epoch)),
        Column("Epochs", lambda one: str(len(one[1].epochs))),
        Column(f"Epoch that reached {percent(CONVERGED, 0)} % of the best", lambda o: str(_reached(o[1]))),  # noqa: E501
        Column("Best validation, %", lambda one: percent(max(one[1].validation_curve))),
        Column("Minutes until then", lambda one: _minutes_to_converge(one[1])),
        words("Hardware", _hardware),
    ]  # fmt: skip
    yield Table(columns, trained)
    phases = [line for model, found in trained for line in _phases(model.model, found)]
    if phases:
        yield "Trainings of several phases, each from the best weights before it:"
        of_phases: list[Column[list[str]]] = [
            words("Model", lambda line: line[0]),
            words("Phase", lambda line: line[1]),
            Column("Epochs", lambda line: line[2]),
            Column("Best validation in it, %", lambda line: line[3]),
            Column("Gained on before, points", lambda line: line[4]),
        ]
        yield Table(of_phases, phases)


def overfitting(shown: Shown) -> Iterator[Block]:
    """Train minus test accuracy."""
    found = [
        (model, accuracy.card_train_accuracy, accuracy.top1.accuracy)
        for model in with_gap(shown.models)
        if (accuracy := model.accuracy) is not None and accuracy.card_train_accuracy is not None
    ]
    if not found:
        return
    yield (
        "Train minus test accuracy of the kept weights: how much better a model knows the images "
        "that it learned from, without augmentation."
    )
    columns: list[Column[tuple[ModelResult, float, float]]] = [
        words("Model", lambda one: one[0].model),
        Column("Train, %", lambda one: percent(one[1])),
        Column("Test, %", lambda one: percent(one[2])),
        Column("Gap, points", lambda one: points(one[1] - one[2])),
        Column("The study's gap, points", lambda one: _study_gap(one[0])),
    ]
    yield Table(columns, found)
    yield Picture("gaps")


def seeds(shown: Shown) -> Iterator[Block]:
    """Mean and spread of each recipe that was trained several times."""
    groups = [group for group in seed_groups(shown.models) if group.deviation is not None]
    if not groups:
        return
    yield (
        "The same recipe trained again with another seed. The standard deviation is between "
        "trainings (n − 1); the Wilson interval of one training does not cover it."
    )
    columns: list[Column[SeedGroup]] = [
        words("Recipe", lambda group: group.recipe),
        words("Precision", lambda group: group.precision),
        Column("Seeds", lambda group: str(len(group.models))),
        Column("Test, % (mean ± s.d.)", lambda g: f"{percent(g.mean)} ± {percent(g.deviation)}"),
        Column("Range, points", lambda one: points(max(one.accuracies) - min(one.accuracies))),
        words("Each, %", _each_seed),
    ]
    yield Table(columns, groups)


def _each_seed(group: SeedGroup) -> str:
    pairs = zip(group.models, group.accuracies, strict=True)
    return ", ".join(
        f"{model.cost.seed if model.cost else NOTHING}: {percent(accuracy)}"
        for model, accuracy in pairs
    )


def _hardware(one: _Trained) -> str:
    return one[0].cost.training_hardware if one[0].cost else NOTHING


def _range(values: Sequence[float]) -> str:
    return f"{significant(min(values))}–{significant(max(values))}"


def _reached(found: TrainingMeasurement) -> int:
    curve = found.validation_curve
    wanted = CONVERGED * max(curve)
    return next(number for number, value in enumerate(curve, start=1) if value >= wanted)


def _minutes_to_converge(found: TrainingMeasurement) -> str:
    return significant(sum(found.seconds_per_epoch[: _reached(found)]) / 60)


def _phases(name: str, found: TrainingMeasurement) -> list[list[str]]:
    """Cells of each phase; none for a training of one phase."""
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


def _one_each(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Each model once, whatever ran it; not those that only differ in precision."""
    found = {one.model: one for one in one_of_each(models) if one.cost and one.precision == "fp32"}
    return list(found.values())


SECTIONS: Final = (
    Section(120, "Training", training),
    Section(130, "Seconds per epoch, and convergence", convergence),
    Section(140, "Overfitting", overfitting),
    Section(150, "The same recipe, another seed", seeds),
)
