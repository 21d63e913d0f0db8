"""The report's sections on the reference study: its figures beside ours, and what dominates its
models."""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.report.formats import (
    NOTHING,
    Align,
    accuracy_with_interval,
    markdown_table,
    millions,
    points,
    significant,
)
from bench.report.study.front import Domination, Placed, dominations, placed, repeats
from bench.report.study.reference import STUDY, StudyResult
from bench.rows.files import MachineResults
from bench.rows.seeds import SeedGroup, one_of_each, seed_groups
from bench.rows.selection import TRADE_OFFS, ModelResult

_BESIDE: Final = (
    "The study's figures as it printed them, ~ where it rounded. Its test set also served as its "
    "validation set; here the test set chooses nothing: it is looked at once a recipe, and "
    "was twice for `mobilenetv2_tuned` (`docs/experiments.md`). The difference is ours minus the "
    "study's; where a recipe was trained with several seeds it is of their mean."
)
_FRONT: Final = (
    "The study's models at the accuracy that it printed and at the cost that our build of the same "
    "network has here (same layers, so the same file size and multiply-accumulates, and the "
    "latency of the exported graph). Its accuracies are of its own images. A model dominates "
    "another when it is at least as accurate and costs no more in latency, size and "
    "multiply-accumulates; of several the most accurate is named, and how many times cheaper it "
    "is. Where none does so at all three, the best at each is named with the costs at which it "
    "does. Our own build of a network does not count against it."
)


def study(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """The reference study beside ours."""
    missing = [m for m in one_of_each(models) if m.cost and m.cost.random_weights]
    names = " ".join(sorted({m.cost.recipe for m in missing if m.cost and m.accuracy is None}))
    how = (
        "\n\nWhat has no pretrained weights here gets them on a machine with internet: "
        f"`cifar10 study {names} && cifar10 export --all`, then `cifar10 bench all`."
    )
    return f"{_BESIDE}\n\n{study_table(models)}{how if names else ''}"


def study_table(results: Sequence[ModelResult]) -> str:
    """The study's models, each with ours that repeats it."""
    groups = seed_groups(results)
    rows = []
    for one in STUDY:
        built = [result for result in one_of_each(results) if repeats(result, one)]
        ours = next((result for result in built if result.accuracy is not None), None)
        shown = ours or (built[0] if built else None)
        accuracy = ours.accuracy if ours else None
        group = _group_of(groups, one)
        rows.append(
            [
                one.model,
                printed(one),
                NOTHING if one.train_percent is None else f"{one.train_percent:.1f}",
                NOTHING if one.gap_points is None else f"{one.gap_points:.1f}",
                NOTHING if one.epochs is None else str(one.epochs),
                shown.model if shown else NOTHING,
                accuracy_with_interval(accuracy.top1) if accuracy else _why_none(shown),
                _difference(group, one),
                points(accuracy.overfitting_gap if accuracy else None),
                str(ours.cost.training_epochs) if ours and ours.cost else NOTHING,
            ]
        )
    header = [
        "Reference study",
        "Test, %",
        "Train, %",
        "Gap, points",
        "Epochs",
        "Here",
        "Test, % (95 % interval)",
        "Difference, points",
        "Gap, points",
        "Epochs",
    ]
    sides: list[Align] = [
        "left" if title in ("Reference study", "Here") else "right" for title in header
    ]
    return markdown_table(header, rows, sides)


def study_front(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """The study's models among ours, and what dominates each."""
    found = placed(models)
    if not found:
        return ""
    rows = [row for one in found for row in _front_rows(one, models)]
    header = [
        "No.",
        "Reference study",
        "Its test, %",
        "Our build",
        "Ours, %",
        "p50, ms",
        "MB",
        "M MACs",
        "Dominated by",
        "By points",
        "Times faster",
        "Times smaller",
        "Times fewer MACs",
    ]
    words = ("Reference study", "Our build", "Dominated by")
    sides: list[Align] = ["left" if title in words else "right" for title in header]
    text = f"{_FRONT}\n\n{markdown_table(header, rows, sides)}"
    missing = [one.model for one in STUDY if one.model not in {each.study.model for each in found}]
    if missing:
        text += (
            f"\nNot placed, because no build of ours was measured: {', '.join(missing)}. "
            "`cifar10 study`, then export and `cifar10 bench all`, makes them."
        )
    picture = pictures.get("study_front")
    return f"{text.rstrip()}\n\n{picture}" if picture else text


def printed(one: StudyResult) -> str:
    """The study's test accuracy as it printed it."""
    if one.test_percent is None:
        return NOTHING
    return f"~ {one.test_percent:.0f}" if one.rounded else f"{one.test_percent:.2f}"


def _group_of(groups: Sequence[SeedGroup], one: StudyResult) -> SeedGroup | None:
    return next(
        (group for group in groups if any(repeats(model, one) for model in group.models)), None
    )


def _difference(group: SeedGroup | None, one: StudyResult) -> str:
    if group is None or one.test_percent is None:
        return NOTHING
    difference = group.mean * 100 - one.test_percent
    seeds = "" if group.deviation is None else f" (mean of {len(group.models)})"
    return f"{'~ ' if one.rounded else ''}{difference:+.1f}{seeds}"


def _why_none(ours: ModelResult | None) -> str:
    if ours is not None and ours.cost is not None and ours.cost.random_weights:
        return "no pretrained weights here"
    return NOTHING


def _front_rows(one: Placed, models: Sequence[ModelResult]) -> list[list[str]]:
    ours = one.ours
    accuracy = ours.accuracy
    about = [
        str(one.number),
        one.study.model,
        printed(one.study),
        ours.model,
        accuracy_with_interval(accuracy.top1) if accuracy else _why_none(ours),
        significant(one.cost_in("latency")),
        millions(one.cost_in("size")),
        millions(one.cost_in("MACs")),
    ]
    found = dominations(one, models)
    if one.study.test_percent is None:
        return [[*about, "no figure of the study's to compare", *[NOTHING] * 4]]
    if not found:
        return [[*about, "nothing measured here", *[NOTHING] * 4]]
    blank = ["″"] * len(about)
    return [
        [*(about if position == 0 else blank), *_dominated(each, one)]
        for position, each in enumerate(found)
    ]


def _dominated(each: Domination, one: Placed) -> list[str]:
    names = [name for name in TRADE_OFFS if name in each.times_cheaper]
    known = [
        name
        for name in TRADE_OFFS
        if one.cost_in(name) is not None and each.by.cost_in(name) is not None
    ]
    whole = names == known
    return [
        f"{each.by.model}" if whole else f"{each.by.model}, in {', '.join(names)} only",
        f"{each.points:+.1f}",
        *(
            f"{significant(each.times_cheaper[name], 2)}×"
            if name in each.times_cheaper
            else NOTHING
            for name in TRADE_OFFS
        ),
    ]
