"""The report's analysis of how models were trained and what that gave: seeds, gaps, convergence,
phases, and what each change to a transfer-learning recipe did. Every figure is from a row."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Final

from bench.report.formats import (
    NOTHING,
    count,
    markdown_table,
    numbers_after_name,
    percent,
    points,
    significant,
)
from bench.report.recommend import comparable, told_apart
from bench.report.sections.evidence import p_value
from bench.report.study.ablation import Step, mean_effect, single_changes, way_to_the_best
from bench.report.study.front import repeats
from bench.report.study.plots import with_gap
from bench.report.study.recipe_facts import TITLES, RecipeFacts, facts_of
from bench.report.study.reference import STUDY
from bench.rows.files import MachineResults
from bench.rows.kinds.cost import TrainingMeasurement
from bench.rows.seeds import one_of_each, seed_groups
from bench.rows.selection import ModelResult
from bench.statistics.samples import median

CONVERGED: Final = 0.99
"""Share of its best validation accuracy from which a training counts as converged."""

NEAR_POINTS: Final = 3.0
"""Of the study's figures, within which a model counts as reproducing them."""

_DIFFERENCE: Final = "Difference, points (95 % interval)"


def seeds(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Mean and spread of each recipe that was trained several times."""
    rows = [
        [
            group.recipe,
            group.precision,
            str(len(group.models)),
            f"{percent(group.mean)} ± {percent(group.deviation)}",
            points(max(group.accuracies) - min(group.accuracies)),
            ", ".join(
                f"{model.cost.seed if model.cost else NOTHING}: {percent(accuracy)}"
                for model, accuracy in zip(group.models, group.accuracies, strict=True)
            ),
        ]
        for group in seed_groups(models)
        if group.deviation is not None
    ]
    if not rows:
        return ""
    header = ["Recipe", "Precision", "Seeds", "Test, % (mean ± s.d.)", "Range, points", "Each, %"]
    return (
        "The same recipe trained again with another seed. The standard deviation is between "
        "trainings (n − 1); the Wilson interval of one training does not cover it.\n\n"
        + markdown_table(header, rows, numbers_after_name(header, ("Precision", "Each, %")))
    )


def overfitting(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Train minus test accuracy."""
    shown = with_gap(models)
    if not shown:
        return ""
    rows = [
        [
            model.model,
            percent(model.accuracy.card_train_accuracy),
            percent(model.accuracy.top1.accuracy),
            points(model.accuracy.card_train_accuracy - model.accuracy.top1.accuracy),
            _study_gap(model),
        ]
        for model in shown
        if model.accuracy is not None and model.accuracy.card_train_accuracy is not None
    ]
    header = ["Model", "Train, %", "Test, %", "Gap, points", "The study's gap, points"]
    return _with(
        "Train minus test accuracy of the kept weights: how much better a model knows the images "
        "that it learned from, without augmentation.\n\n"
        + markdown_table(header, rows, numbers_after_name(header)),
        pictures,
        "gaps",
    )


def convergence(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Seconds per epoch, and when a training had got where it was going."""
    rows = []
    for model in _trained(models):
        found = model.training
        if found is None or not found.epochs:
            continue
        validation = [epoch.validation_accuracy for epoch in found.epochs]
        reached = next(
            number
            for number, value in enumerate(validation, start=1)
            if value >= CONVERGED * max(validation)
        )
        rows.append(
            [
                model.model,
                significant(median(found.seconds_per_epoch)),
                f"{significant(min(found.seconds_per_epoch))}–"
                f"{significant(max(found.seconds_per_epoch))}",
                str(len(validation)),
                str(reached),
                percent(max(validation)),
                significant(sum(found.seconds_per_epoch[:reached]) / 60),
                model.cost.training_hardware if model.cost else NOTHING,
            ]
        )
    if not rows:
        return ""
    header = [
        "Model",
        "Seconds per epoch, median",
        "Range",
        "Epochs",
        f"Epoch that reached {percent(CONVERGED, 0)} % of the best",
        "Best validation, %",
        "Minutes until then",
        "Hardware",
    ]
    text = (
        "From `history.csv`. Where a frozen base was run once and its features were stored, an "
        "epoch is one of the head alone. Validation is of the network as it is trained: one that "
        "is kept with the mirror image (`compact`) has another in its card.\n\n"
        + markdown_table(header, rows, numbers_after_name(header, ("Hardware",)))
    )
    phases = _phases(models)
    if phases:
        text += f"\nTrainings of several phases, each from the best weights before it:\n\n{phases}"
    return text


def ablation(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Pairs that differ in one factor, and the way from the study's recipe to the best."""
    changes = single_changes(models)
    way = way_to_the_best(models)
    parts = []
    if changes:
        rows = [[TITLES[step.factors[0]], *_step_cells(step)] for step in changes]
        header = ["What changed", *_STEP_HEADER]
        parts.append(
            "Pairs of recipes with the same backbone that differ in one thing only, by their cards "
            "(one seed each, full precision), on the same test images; McNemar's test as above. A "
            "base that is trained further has phases of its own besides.\n\n"
            + markdown_table(header, rows, numbers_after_name(header, _STEP_WORDS))
        )
    if way:
        rows = [[str(number), *_step_cells(step)] for number, step in enumerate(way, start=1)]
        header = ["Step", *_STEP_HEADER]
        parts.append(
            f"Step by step from `{way[0].before.result.model}` to the best of them, "
            f"`{way[-1].after.result.model}`: each recipe has more in common with it than the one "
            "before. A step that changes several things does "
            "not tell which of them helped.\n\n"
            + markdown_table(header, rows, numbers_after_name(header, _STEP_WORDS))
        )
    return "\n\n".join(part.rstrip() for part in parts)


def conclusions(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What the rows say about the study's conclusions; what they do not say is left out."""
    found = [
        *_on_reproduction(models),
        *_on_cnn_against_frozen(models),
        *_on_factors(models),
        *_on_the_frozen_figures(models),
    ]
    return "\n".join(f"- {sentence}" for sentence in found)


def _on_reproduction(models: Sequence[ModelResult]) -> list[str]:
    sentences = []
    for study in STUDY:
        group = next((g for g in seed_groups(models) if repeats(g.models[0], study)), None)
        if group is None or study.test_percent is None:
            continue
        ours = group.models[0]
        seeds = f" (mean of {len(group.models)} seeds)" if len(group.models) > 1 else ""
        off = group.mean * 100 - study.test_percent
        near = "repeated" if abs(off) <= NEAR_POINTS else "**not repeated**"
        about = "about " if study.rounded else ""
        sentences.append(
            f"{study.model}: the study printed {about}{study.test_percent:g} %; `{ours.model}` "
            f"reaches {percent(group.mean)} %{seeds}, {abs(off):.1f} points "
            f"{'more' if off >= 0 else 'less'}: {near} within {NEAR_POINTS:g} points."
        )
    return sentences


def _on_cnn_against_frozen(models: Sequence[ModelResult]) -> list[str]:
    right = one_of_each(comparable(models))
    cnn = next((m for m in right if m.cost and m.cost.recipe == "simple_cnn"
                and m.cost.precision == "fp32"), None)  # fmt: skip
    if cnn is None or cnn.accuracy is None:
        return []
    sentences = []
    for small, title in ((True, "at 32 px"), (False, "at more than 32 px")):
        rivals = [
            model
            for model in right
            if (facts := facts_of(model)) is not None and (facts.resolution <= 32) == small
        ]
        if not rivals:
            continue
        ahead = [m for m in rivals if _accuracy(m) > _accuracy(cnn) and told_apart(m, cnn)]
        behind = [m for m in rivals if _accuracy(m) < _accuracy(cnn) and told_apart(m, cnn)]
        best = max(rivals, key=_accuracy)
        sentences.append(
            f"The small CNN (`{cnn.model}`, {percent(_accuracy(cnn))} %) against transfer learning "
            f"{title}: of {len(rivals)} models {len(behind)} are measurably less accurate than it "
            f"and {len(ahead)} more; the best, `{best.model}`, has {percent(_accuracy(best))} %."
        )
    return sentences


def _on_factors(models: Sequence[ModelResult]) -> list[str]:
    sentences = []
    effects = []
    for factor, steps in groupby(single_changes(models), key=lambda step: step.factors[0]):
        found = list(steps)
        differences = [step.test.difference * 100 for step in found]
        real = sum(step.test.is_real for step in found)
        effects.append((fmean(map(abs, differences)), TITLES[factor]))
        spread = (
            f"{differences[0]:+.1f} points"
            if len(found) == 1
            else f"{mean_effect(found) * 100:+.1f} points on average "
            f"({min(differences):+.1f} to {max(differences):+.1f})"
        )
        # A base that is trained further is so in phases of its own, with epochs of their own.
        alone = " (and its epochs)" if factor == "base" else " alone"
        sentences.append(
            f"{TITLES[factor].capitalize()}{alone}, in {len(found)} "
            f"pair{'s' if len(found) > 1 else ''}: {spread}; real in {real}."
        )
    if len(effects) > 1:
        ranked = ", ".join(title for _, title in sorted(effects, reverse=True))
        sentences.append(
            f"By the mean size of the differences, whichever way, largest first: {ranked}."
        )
    return sentences


def _on_the_frozen_figures(models: Sequence[ModelResult]) -> list[str]:
    """Which configuration gives the study's two figures of the frozen MobileNetV2 together."""
    study = next(one for one in STUDY if one.recipe == "mobilenetv2_frozen")
    wanted_train, wanted_test = study.train_percent, study.test_percent
    if wanted_train is None or wanted_test is None:
        return []
    of_backbone = [
        (accuracy.card_train_accuracy * 100, accuracy.top1.accuracy * 100, model, facts)
        for model in one_of_each(comparable(models))
        if (facts := facts_of(model)) is not None
        and facts.backbone == "mobilenetv2"
        and (accuracy := model.accuracy) is not None
        and accuracy.card_train_accuracy is not None
    ]
    as_there = [
        (train, test, model)
        for train, test, model, facts in of_backbone
        if (facts.resolution, facts.preprocessing) == (32, "unit")
    ]
    if not as_there:
        return []
    kept = [(train, test, f"`{model.model}`") for train, test, model in as_there]
    # What Keras prints after an epoch; the study's validation images were its test images.
    printed = [
        (epoch.accuracy * 100, epoch.validation_accuracy * 100, f"`{model.model}`, epoch {number},")
        for _, _, model in as_there
        for number, epoch in enumerate(model.training.epochs if model.training else (), start=1)
    ]

    def distance(one: tuple[float, float, str]) -> float:
        return max(abs(one[0] - wanted_train), abs(one[1] - wanted_test))

    def verdict(one: tuple[float, float, str]) -> str:
        near = distance(one) <= NEAR_POINTS
        return "reproduces both" if near else "comes nearest, and does not reproduce them"

    train, test, name = best = min(kept, key=distance)
    sentences = [
        f"The study's frozen MobileNetV2 had {wanted_train:g} % on training and "
        f"{wanted_test:g} % on test images. Of the {len(kept)} configurations of that backbone at "
        f"32 px, fed x/255, that were measured here {name} {verdict(best)}: {train:.1f} % and "
        f"{test:.1f} %."
    ]
    if printed:
        train, test, name = best = min(printed, key=distance)
        sentences.append(
            f"By the figures printed after each of the {len(printed)} epochs of those trainings "
            "(training accuracy while the weights still change, with dropout and batch statistics "
            f"where there are any; validation after it) {name} {verdict(best)}: {train:.1f} % and "
            f"{test:.1f} %."
        )
    if len(of_backbone) > len(as_there):
        named = [
            (train, test, f"`{model.model}` ({_in_words(model, facts)})")
            for train, test, model, facts in of_backbone
        ]
        train, test, name = best = min(named, key=distance)
        sentences.append(
            f"Of all {len(named)} configurations of that backbone, at whatever size and however "
            f"fed, {name} {verdict(best)}: {train:.1f} % and {test:.1f} %."
        )
    return sentences


def _in_words(model: ModelResult, facts: RecipeFacts) -> str:
    told = [facts.shown(factor) for factor in ("resolution", "preprocessing", "base", "images")]
    if model.cost is not None:
        told.append(f"{model.cost.parameters_trainable:,} trained parameters")
    return ", ".join(told)


_STEP_HEADER: Final = ("From", "To", "Change", "Before, %", "After, %", _DIFFERENCE, "p", "Real?")
_STEP_WORDS: Final = ("From", "To", "Change", "Real?")


def _step_cells(step: Step) -> list[str]:
    test = step.test
    return [
        step.before.result.model,
        step.after.result.model,
        step.told(),
        percent(step.before.accuracy),
        percent(step.after.accuracy),
        f"{test.difference * 100:+.2f} ({test.low * 100:+.2f} to {test.high * 100:+.2f})",
        p_value(test.p_value),
        "yes" if test.is_real else "cannot be told",
    ]


def _phases(models: Sequence[ModelResult]) -> str:
    rows = []
    for model in _trained(models):
        found = model.training
        if found is None or len({epoch.phase for epoch in found.epochs}) < 2:
            continue
        rows += _phase_rows(model.model, found)
    if not rows:
        return ""
    header = ["Model", "Phase", "Epochs", "Best validation in it, %", "Gained on before, points"]
    return markdown_table(header, rows, numbers_after_name(header, ("Phase",)))


def _phase_rows(name: str, found: TrainingMeasurement) -> list[list[str]]:
    rows = []
    before: float | None = None
    for phase, epochs in groupby(found.epochs, key=lambda epoch: epoch.phase):
        values = [epoch.validation_accuracy for epoch in epochs]
        best = max(values)
        gained = NOTHING if before is None else f"{(best - before) * 100:+.2f}"
        rows.append([name, phase, count(len(values)), percent(best), gained])
        before = best if before is None else max(before, best)
    return rows


def _study_gap(model: ModelResult) -> str:
    study = next((one for one in STUDY if repeats(model, one)), None)
    if study is None:
        return NOTHING
    if study.gap_points is not None:
        return f"{study.gap_points:.1f}"
    if study.train_percent is None or study.test_percent is None:
        return NOTHING
    return f"{study.train_percent - study.test_percent:.1f}"


def _trained(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Each model once, whatever ran it; not those that only differ in precision."""
    found = {m.model: m for m in one_of_each(models) if m.cost and m.cost.precision == "fp32"}
    return list(found.values())


def _accuracy(model: ModelResult) -> float:
    return model.accuracy.top1.accuracy if model.accuracy else 0.0


def _with(text: str, pictures: Mapping[str, str], name: str) -> str:
    picture = pictures.get(name)
    return f"{text.rstrip()}\n\n{picture}" if picture else text
