"""Pictures about the reference study: its models among ours, and its own two figures made again
from our rows."""

import string
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.report.plots.axes import COST_AXES
from bench.report.plots.style import COLOURS, INK, MARKED_EPOCHS, MARKERS, MOST_LINES, readable_axis
from bench.report.recommend import comparable
from bench.report.study.front import placed, repeats
from bench.report.study.recipe_facts import facts_of, is_transfer
from bench.report.study.reference import STUDY
from bench.rows.seeds import SeedGroup, one_of_each, seed_groups
from bench.rows.selection import TRADE_OFFS, ModelResult, fronts

OURS: Final = COLOURS[0]
STUDYS: Final = COLOURS[1]
NATIVE: Final = COLOURS[2]
_QUIET: Final = "#8a9ba8"


def draw_study_front(results: Sequence[ModelResult]) -> Figure:
    """Our models, the front they make, and the study's models by number at our measured cost."""
    figure = Figure(figsize=(10.5, 5.4), layout="constrained")
    all_axes = figure.subplots(1, len(TRADE_OFFS), sharey=True)
    ours = [one for one in one_of_each(comparable(results)) if one.accuracy is not None]
    on_front = fronts(ours)
    study = placed(results)
    letters: dict[str, str] = {}
    for axes, trade_off in zip(all_axes, TRADE_OFFS, strict=True):
        label, scale = COST_AXES[trade_off]
        front = []
        for position, result in enumerate(ours):
            cost = result.cost_in(trade_off)
            if cost is None or result.accuracy is None:
                continue
            y, best = result.accuracy.top1.accuracy * 100, position in on_front[trade_off]
            axes.plot(
                cost * scale, y, "o", color=OURS if best else _QUIET, markersize=6 if best else 5,
                markerfacecolor=OURS if best else "none", zorder=3,
            )  # fmt: skip
            if best:
                front.append((cost * scale, y, result.model))
        front.sort()
        axes.step(
            [x for x, _, _ in front], [y for _, y, _ in front], where="post", color=OURS,
            linewidth=1, alpha=0.7,
        )  # fmt: skip
        for one in study:
            cost = one.cost_in(trade_off)
            if cost is None or one.study.test_percent is None:
                continue
            percent = one.study.test_percent
            axes.plot(cost * scale, percent, "D", color=STUDYS, markerfacecolor="none", zorder=3)
            axes.annotate(
                str(one.number), (cost * scale, percent), (0, -11), textcoords="offset points",
                ha="center", fontsize=7, color=STUDYS,
            )  # fmt: skip
            if one.ours.accuracy is not None:
                axes.plot(
                    [cost * scale] * 2, [percent, one.ours.accuracy.top1.accuracy * 100],
                    color=STUDYS, linewidth=0.8, linestyle=":",
                )  # fmt: skip
        axes.margins(x=0.12)
        readable_axis(axes, axes.xaxis)
        axes.set_xlabel(label)
        for x, y, name in front:
            axes.annotate(
                letters.setdefault(name, string.ascii_lowercase[len(letters) % 26]), (x, y), (0, 6),
                textcoords="offset points", ha="center", fontsize=8, color=OURS,
            )  # fmt: skip
    all_axes[0].set_ylim(0, 100)
    all_axes[0].set_ylabel("top-1 accuracy (%)")
    handles = [
        all_axes[0].plot([], [], "o-", color=OURS, label="ours, on the Pareto front")[0],
        all_axes[0].plot([], [], "o", color=_QUIET, markerfacecolor="none", label="ours")[0],
        all_axes[0].plot(
            [], [], "D:", color=STUDYS, markerfacecolor="none",
            label="the study's printed accuracy at our measured cost (dotted: to our own build)",
        )[0],
    ]  # fmt: skip
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=3)
    key = [f"{one.number} {one.study.model}" for one in study if one.study.test_percent is not None]
    figure.supxlabel(
        _wrapped([f"{letter} {name}" for name, letter in letters.items()], 6)
        + "\n"
        + _wrapped(key, 6),
        fontsize=8,
    )
    return figure


def draw_cnn_and_transfer(results: Sequence[ModelResult]) -> Figure:
    """The study's first figure from our rows: validation accuracy by epoch, and the test accuracy
    that came of it. Solid: networks of our own; dashed: on a pretrained backbone."""
    shown = shown_in_first_figure(results)
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for position, result in enumerate(shown):
        if result.training is None:
            continue
        curve = [each.validation_accuracy * 100 for each in result.training.epochs]
        left.plot(
            range(1, len(curve) + 1), curve, color=COLOURS[position % len(COLOURS)],
            linestyle="--" if is_transfer(result) else "-",
            marker=MARKERS[position % len(MARKERS)] if len(curve) < MARKED_EPOCHS else None,
            markersize=4, label=result.model,
        )  # fmt: skip
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    readable_axis(left, left.xaxis)
    left.set_xlabel("epoch")
    left.set_ylabel("validation accuracy (%)")
    left.set_ylim(0, 100)
    left.set_title("solid: own network; dashed: pretrained backbone", fontsize=9)
    groups = seed_groups(results)
    for position, result in enumerate(shown):
        group = _group_with(groups, result)
        if result.accuracy is None or group is None:
            continue
        _bar(right, position, group, COLOURS[position % len(COLOURS)])
        study = next((one for one in STUDY if repeats(result, one)), None)
        if study is not None and study.test_percent is not None:
            right.plot(study.test_percent, position, "D", color=INK, markerfacecolor="none")
    right.set_yticks(range(len(shown)), [result.model for result in shown], fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xlabel("test accuracy (%)")
    right.set_title(
        "bar: mean of seeds (n at its end); line: 95 % Wilson, or ± 1 s.d.\n◇ as the study printed",
        fontsize=8,
    )
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center",
                  ncols=4)  # fmt: skip
    return figure


def shown_in_first_figure(results: Sequence[ModelResult]) -> list[ModelResult]:
    """Those with a curve: our own networks and the study's two MobileNetV2, not the nine of its
    comparison, which have a figure of their own; at most what can be told apart."""
    found = {
        result.model: result
        for result in one_of_each(results)
        if result.training is not None
        and result.training.epochs
        and result.accuracy is not None
        and result.cost is not None
        and result.cost.precision == "fp32"
        and not result.cost.recipe.startswith("backbone_")
    }
    return list(found.values())[:MOST_LINES]


def draw_backbones(results: Sequence[ModelResult]) -> Figure:
    """The study's second figure from our rows: accuracy and size of each backbone."""
    pairs = backbone_pairs(results)
    names = list(pairs)
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    groups = seed_groups(results)
    for position, name in enumerate(names):
        for result, shift, colour in zip(pairs[name], (-0.2, 0.2), (OURS, NATIVE), strict=True):
            if result is None:
                continue
            group = _group_with(groups, result)
            if group is None:
                left.annotate(
                    "no pretrained weights here" if _is_random(result) else "not measured",
                    (1, position + shift), va="center", fontsize=7, color=colour,
                )  # fmt: skip
            else:
                _bar(left, position + shift, group, colour, height=0.36)
        unit = pairs[name][0] or pairs[name][1]
        study = next(one for one in STUDY if one.recipe == f"backbone_{name}")
        if study.test_percent is not None:
            left.plot(study.test_percent, position, "D", color=STUDYS, markerfacecolor="none")
        if unit is not None and unit.cost is not None:
            right.barh(position, unit.cost.size_bytes / 1e6, color=_QUIET, height=0.6)
            right.annotate(
                f"{unit.cost.parameters_total / 1e6:.1f} M parameters",
                (unit.cost.size_bytes / 1e6, position), (3, 0), textcoords="offset points",
                va="center", fontsize=7,
            )  # fmt: skip
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xlim(0, 100)
    left.set_xlabel("test accuracy (%)")
    right.set_xlabel("file size (MB)")
    right.margins(x=0.35)
    handles = [
        Patch(color=OURS, label="ours, x/255 as the study"),
        Patch(color=NATIVE, label="ours, native preprocessing"),
        left.plot(
            [], [], "D", color=STUDYS, markerfacecolor="none", label="the study, as printed"
        )[0],
    ]  # fmt: skip
    figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=3)
    return figure


def backbone_pairs(
    results: Sequence[ModelResult],
) -> dict[str, tuple[ModelResult | None, ModelResult | None]]:
    """Backbone, in the study's order → our model fed x/255, and its native twin."""
    found = {}
    by_recipe = {
        result.cost.recipe: result
        for result in reversed(one_of_each(results))
        if result.cost is not None and result.cost.precision == "fp32"
    }
    for one in STUDY:
        recipe = one.recipe or ""
        if recipe.startswith("backbone_"):
            pair = by_recipe.get(recipe), by_recipe.get(f"{recipe}_native")
            if any(each is not None for each in pair):
                found[recipe.removeprefix("backbone_")] = pair
    return found


def draw_gaps(results: Sequence[ModelResult]) -> Figure:
    """Train and test accuracy of each model, and the gap between them."""
    shown = with_gap(results)
    figure = Figure(figsize=(8, 0.34 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots()
    for position, result in enumerate(shown):
        accuracy = result.accuracy
        if accuracy is None or accuracy.card_train_accuracy is None:
            continue
        test, train = accuracy.top1.accuracy * 100, accuracy.card_train_accuracy * 100
        axes.plot([test, train], [position] * 2, color=_QUIET, linewidth=3, zorder=1)
        axes.plot(test, position, "o", color=OURS)
        axes.plot(train, position, "s", color=STUDYS)
        axes.annotate(
            f"{train - test:+.1f}", (max(test, train), position), (7, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axes.plot([], [], "o", color=OURS, label="test")
    axes.plot([], [], "s", color=STUDYS, label="training images")
    axes.set_yticks(range(len(shown)), [result.model for result in shown], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("top-1 accuracy of the kept weights (%); figure: the gap in points")
    figure.legend(fontsize=8, loc="outside upper center", ncols=2)
    return figure


def with_gap(results: Sequence[ModelResult]) -> list[ModelResult]:
    """The models whose card tells the accuracy on training images, each once."""
    found = {
        result.model: result
        for result in one_of_each(results)
        if result.accuracy is not None
        and result.accuracy.card_train_accuracy is not None
        and (result.cost is None or result.cost.precision == "fp32")
    }
    return list(found.values())


def has_backbones(results: Sequence[ModelResult]) -> bool:
    """Whether there is anything for :func:`draw_backbones`."""
    return bool(backbone_pairs(results))


def has_both_kinds(results: Sequence[ModelResult]) -> bool:
    """Whether there is a curve of a network of our own and one on a backbone."""
    return len({facts_of(result) is None for result in shown_in_first_figure(results)}) == 2


def _bar(axes: Any, at: float, group: SeedGroup, colour: str, height: float = 0.6) -> None:
    mean = group.mean * 100
    top1 = group.models[0].accuracy
    if group.deviation is not None:
        low = high = group.deviation * 100
    elif top1 is not None:
        low, high = mean - top1.top1.low * 100, top1.top1.high * 100 - mean
    else:
        low = high = 0.0
    axes.barh(at, mean, xerr=[[low], [high]], color=colour, height=height, capsize=2,
              error_kw={"linewidth": 1, "ecolor": INK})  # fmt: skip
    seeds = f" (n = {len(group.models)})" if len(group.models) > 1 else ""
    axes.annotate(
        f"{mean:.1f}{seeds}", (mean + high, at), (4, 0), textcoords="offset points", va="center",
        fontsize=7,
    )  # fmt: skip


def _group_with(groups: Sequence[SeedGroup], result: ModelResult) -> SeedGroup | None:
    return next((group for group in groups if result in group.models), None)


def _is_random(result: ModelResult) -> bool:
    return result.cost is not None and result.cost.random_weights


def _wrapped(words: Sequence[str], a_line: int) -> str:
    lines = [words[start : start + a_line] for start in range(0, len(words), a_line)]
    return "\n".join("    ".join(line) for line in lines)
