"""The reference study's conclusions, each compared with the rows."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import Final

from bench.report.formats import percent
from bench.report.shown import Shown
from bench.report.study.ablation import mean_effect, single_changes
from bench.report.study.front import repeats
from bench.report.study.recipe_facts import TITLES, RecipeFacts, facts_of
from bench.report.study.reference import STUDY
from bench.report.tables import Block
from bench.report.verdict import comparable, told_apart
from bench.rows.seeds import one_of_each, seed_groups
from bench.rows.selection import ModelResult

NEAR_POINTS: Final = 3.0
"""Distance from the study's figures within which a model counts as reproducing them."""


def conclusions(shown: Shown) -> Iterator[Block]:
    """List each conclusion on which there are rows."""
    models = shown.models
    found = [
        *_on_reproduction(models),
        *_on_cnn_against_frozen(models),
        *_on_factors(models),
        *_on_the_frozen_figures(models),
    ]
    yield "\n".join(f"- {sentence}" for sentence in found)


def _share(model: ModelResult) -> float:
    return model.share_right or 0.0


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
        ahead = [m for m in rivals if _share(m) > _share(cnn) and told_apart(m, cnn)]
        behind = [m for m in rivals if _share(m) < _share(cnn) and told_apart(m, cnn)]
        best = max(rivals, key=_share)
        sentences.append(
            f"Transfer learning {title} against the small CNN (`{cnn.model}`, "
            f"{percent(_share(cnn))} %): of {len(rivals)} models {len(behind)} are significantly "
            f"less accurate and {len(ahead)} more; the best, `{best.model}`, reaches "
            f"{percent(_share(best))} %."
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
        # Training the base adds phases with epochs of their own.
        alone = " (and its epochs)" if factor == "base" else " alone"
        sentences.append(
            f"{TITLES[factor].capitalize()}{alone}, in {len(found)} "
            f"pair{'s' if len(found) > 1 else ''}: {spread}; significant in {real}."
        )
    if len(effects) > 1:
        ranked = ", ".join(title for _, title in sorted(effects, reverse=True))
        sentences.append(f"Factors by the mean size of their differences, largest first: {ranked}.")
    return sentences


def _on_the_frozen_figures(models: Sequence[ModelResult]) -> list[str]:
    """Return which configuration reproduces both of the study's figures of frozen MobileNetV2."""
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
    # Figures that Keras prints after an epoch; the study validated on its test images.
    printed = [
        (epoch.accuracy * 100, epoch.validation_accuracy * 100, f"`{model.model}`, epoch {number},")
        for _, _, model in as_there
        for number, epoch in enumerate(model.training.epochs if model.training else (), start=1)
    ]

    def distance(one: tuple[float, float, str]) -> float:
        return max(abs(one[0] - wanted_train), abs(one[1] - wanted_test))

    def verdict(one: tuple[float, float, str]) -> str:
        near = distance(one) <= NEAR_POINTS
        return "reproduces both" if near else "is nearest, and does not reproduce them"

    train, test, name = best = min(kept, key=distance)
    sentences = [
        f"The study's frozen MobileNetV2 reached {wanted_train:g} % on training and "
        f"{wanted_test:g} % on test images. Of our {len(kept)} configurations of that backbone at "
        f"32 px with x/255, {name} {verdict(best)}: {train:.1f} % and {test:.1f} %."
    ]
    if printed:
        train, test, name = best = min(printed, key=distance)
        sentences.append(
            f"By the figures printed after each of the {len(printed)} epochs of those trainings "
            "(training accuracy while the weights change, with dropout; validation accuracy "
            f"afterwards), {name} {verdict(best)}: {train:.1f} % and {test:.1f} %."
        )
    if len(of_backbone) > len(as_there):
        named = [
            (train, test, f"`{model.model}` ({_in_words(model, facts)})")
            for train, test, model, facts in of_backbone
        ]
        train, test, name = best = min(named, key=distance)
        sentences.append(
            f"Of all {len(named)} configurations of that backbone, at any size and preprocessing, "
            f"{name} {verdict(best)}: {train:.1f} % and {test:.1f} %."
        )
    return sentences


def _in_words(model: ModelResult, facts: RecipeFacts) -> str:
    told = [facts.shown(factor) for factor in ("resolution", "preprocessing", "base", "images")]
    if model.cost is not None:
        told.append(f"{model.cost.parameters_trainable:,} trained parameters")
    return ", ".join(told)
