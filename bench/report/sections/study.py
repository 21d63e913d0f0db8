"""Sections on the reference study: its figures beside ours, and what dominates its models."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from bench.report.charts.svg import Line, Mark, Panel, names, numbers
from bench.report.formats import (
    NOTHING,
    accuracy_with_interval,
    difference,
    millions,
    p_value,
    percent,
    points,
    significant,
)
from bench.report.shown import Section, Shown
from bench.report.study.ablation import Step, single_changes, way_to_the_best
from bench.report.study.conclusions import conclusions
from bench.report.study.front import Domination, Placed, dominations, placed, repeats
from bench.report.study.recipe_facts import TITLES
from bench.report.study.reference import STUDY, StudyResult
from bench.report.tables import Block, Column, Picture, Table, words
from bench.rows.seeds import SeedGroup, one_of_each, seed_groups
from bench.rows.selection import TRADE_OFFS, ModelResult

_BESIDE: Final = (
    "The study's figures as printed; ~ marks those it rounded. Its test set was also its "
    "validation set. Here the test set selects nothing: it is evaluated once a recipe (twice for "
    "`mobilenetv2_64px_few`, see `docs/experiments.md`). The difference is ours minus the study's, "
    "of the mean where a recipe was trained with several seeds."
)
_FRONT: Final = (
    "The study's models at its printed accuracy and at the cost of our build of the same network. "
    "A model dominates another if it is at least as accurate and costs no more in latency, size "
    "and multiply-accumulates; the most accurate one is named. Where none does so in all three, "
    "the best in each is named with the costs in which it does. Our own build of the same network "
    "is no rival."
)


def study(shown: Shown) -> Iterator[Block]:
    """Yield the study's figures beside ours."""
    yield study_table(shown.models)
    found = beside(shown)
    if found is not None:
        yield found
    yield _BESIDE
    missing = [m for m in one_of_each(shown.models) if m.has_random_weights and not m.accuracy]
    names = " ".join(sorted({model.recipe or "" for model in missing}))
    if names:
        yield (
            "On a machine with internet, the models without pretrained weights get them: "
            f"`cifar10 study {names} && cifar10 export --all`, then `cifar10 bench all`."
        )


_Beside = tuple[StudyResult, ModelResult | None, SeedGroup | None]
"""A model of the study, ours that repeats it (the one with an accuracy, if any), and its seeds."""


def study_table(results: Sequence[ModelResult]) -> Table[_Beside]:
    """Return the study's models, each with ours that repeats it."""
    groups = seed_groups(results)
    lines: list[_Beside] = []
    for one in STUDY:
        built = [result for result in one_of_each(results) if repeats(result, one)]
        measured = [result for result in built if result.accuracy is not None]
        group = next((g for g in groups if any(repeats(model, one) for model in g.models)), None)
        lines.append((one, next(iter(measured or built), None), group))
    columns: list[Column[_Beside]] = [
        words("Reference study", lambda one: one[0].model),
        Column("Test, %", lambda one: printed(one[0])),
        Column("Train, %", lambda one: _one_digit(one[0].train_percent)),
        Column("Gap, points", lambda one: _one_digit(one[0].gap_points)),
        Column("Epochs", lambda one: str(one[0].epochs or NOTHING)),
        words("Here", lambda one: one[1].model if one[1] else NOTHING),
        Column("Test, % (95 % interval)", lambda one: _our_accuracy(one[1])),
        Column("Difference, points", lambda one: _difference(one[2], one[0])),
        Column("Gap, points", lambda o: points(o[1].accuracy.overfitting_gap)
               if o[1] and o[1].accuracy else NOTHING),
        Column("Epochs", lambda o: str(o[1].cost.training_epochs)
               if o[1] and o[1].accuracy and o[1].cost else NOTHING),
    ]  # fmt: skip
    return Table(columns, lines, "study")


_FrontLine = tuple[Placed, Domination | None, bool]
"""A model of the study, what dominates it, and whether it is the first line about that model."""


def study_front(shown: Shown) -> Iterator[Block]:
    """Yield the table of the study's models and of our models that dominate them."""
    found = placed(shown.models)
    if not found:
        return
    lines: list[_FrontLine] = []
    for one in found:
        by: list[Domination | None] = list(dominations(one, shown.models))
        lines += [(one, each, position == 0) for position, each in enumerate(by or [None])]

    def about(title: str, text: "partial[str] | object") -> Column[_FrontLine]:
        left = title in ("Reference study", "Our build")
        render = text if callable(text) else str
        return Column(title, lambda line: render(line[0]) if line[2] else "″",
                      "left" if left else "right")  # fmt: skip

    yield Table(
        [
            about("Reference study", lambda one: one.study.model),
            about("Its test, %", lambda one: printed(one.study)),
            about("Our build", lambda one: one.ours.model),
            about("Ours, %", lambda one: _our_accuracy(one.ours)),
            about("p50, ms", lambda one: significant(one.cost_in("latency"))),
            about("MB", lambda one: millions(one.cost_in("size"))),
            about("M MACs", lambda one: millions(one.cost_in("MACs"))),
            words("Dominated by", _dominated_by),
            Column("By points", lambda line: f"{line[1].points:+.1f}" if line[1] else NOTHING),
            Column("Times faster", partial(_cheaper, "latency")),
            Column("Times smaller", partial(_cheaper, "size")),
            Column("Times fewer MACs", partial(_cheaper, "MACs")),
        ],
        lines,
        "study-dominated",
    )
    yield _FRONT
    placed_models = {each.study.model for each in found}
    missing = [one.model for one in STUDY if one.model not in placed_models]
    if missing:
        yield (
            f"Not in the table, because no build of ours was measured: {', '.join(missing)}. "
            "`cifar10 study`, then export and `cifar10 bench all`, makes them."
        )


def ablation(shown: Shown) -> Iterator[Block]:
    """Pairs that differ in one factor, and the way from the study's recipe to the best."""
    changes = single_changes(shown.models)
    if changes:
        yield (
            "Pairs of recipes with the same backbone that differ in one factor only (one seed "
            "each, full precision), on the same test images, with McNemar's test. Training the "
            "base adds phases of its own."
        )
        factor: Column[Step] = words("What changed", lambda step: TITLES[step.factors[0]])
        yield Table([factor, *_STEP_COLUMNS], changes, "ablation")
    way = way_to_the_best(shown.models)
    if way:
        yield (
            f"Step by step from `{way[0].before.result.model}` to the best of them, "
            f"`{way[-1].after.result.model}`; each recipe shares more with the best than the one "
            "before. A step that changes several factors does not show which of them helped."
        )
        number: Column[Step] = words("Step", lambda step: str(way.index(step) + 1))
        yield Table([number, *_STEP_COLUMNS], way, "ablation-steps")


_STEP_COLUMNS: Final[tuple[Column[Step], ...]] = (
    words("From", lambda step: step.before.result.model),
    words("To", lambda step: step.after.result.model),
    words("Change", lambda step: step.told()),
    Column("Before, %", lambda step: percent(step.before.accuracy)),
    Column("After, %", lambda step: percent(step.after.accuracy)),
    Column("Difference, points (95 % interval)", lambda step: difference(step.test)),
    Column("p", lambda step: p_value(step.test.p_value)),
    words("Significant", lambda step: "yes" if step.test.is_real else "no"),
)


def printed(one: StudyResult) -> str:
    """Return the study's test accuracy as it printed it."""
    if one.test_percent is None:
        return NOTHING
    return f"~ {one.test_percent:.0f}" if one.rounded else f"{one.test_percent:.2f}"


def _one_digit(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _our_accuracy(ours: ModelResult | None) -> str:
    if ours is not None and ours.accuracy is not None:
        return accuracy_with_interval(ours.accuracy.top1)
    return "no pretrained weights here" if ours and ours.has_random_weights else NOTHING


def _difference(group: SeedGroup | None, one: StudyResult) -> str:
    if group is None or one.test_percent is None:
        return NOTHING
    gained = group.mean * 100 - one.test_percent
    seeds = "" if group.deviation is None else f" (mean of {len(group.models)})"
    return f"{'~ ' if one.rounded else ''}{gained:+.1f}{seeds}"


def _dominated_by(line: _FrontLine) -> str:
    one, by, _ = line
    if one.study.test_percent is None:
        return "the study printed no figure"
    if by is None:
        return "no model measured here"
    names = [name for name in TRADE_OFFS if name in by.times_cheaper]
    known = [t for t in TRADE_OFFS if None not in (one.cost_in(t), by.by.cost_in(t))]
    return by.by.model if names == known else f"{by.by.model}, in {', '.join(names)} only"


def _cheaper(name: str, line: _FrontLine) -> str:
    times = line[1].times_cheaper if line[1] else {}
    found = next((value for trade_off, value in times.items() if trade_off == name), None)
    return NOTHING if found is None else f"{significant(found, 2)}×"


def beside(shown: Shown) -> Picture | None:
    """Return the study's printed accuracy and ours, model by model."""
    marks, lines = [], []
    titles: list[str] = []
    for one, ours, group in study_table(shown.models).rows:
        native = next(
            (m for m in shown.models if m.cost and m.cost.recipe == f"{one.recipe}_native"), None
        )
        found = [m for m in (ours, native) if m is not None and m.share_right is not None]
        if one.test_percent is None and not found:
            continue
        at = len(titles)
        titles.append(one.model)
        places = [one.test_percent] if one.test_percent is not None else []
        marks += [Mark(place, at, 1, f"{one.model}: the study, {place:g} %") for place in places]
        for model in found:
            share = (model.share_right or 0.0) * 100
            mean = group.mean * 100 if group and model is ours else share
            places.append(mean)
            marks.append(Mark(mean, at, 0, f"{model.model}: {mean:.2f} %", hollow=model is native))
        lines.append(Line([(min(places), at), (max(places), at)]))
    if not marks:
        return None
    panel = Panel("", numbers("test accuracy, %", [0, 100], low=0, high=100, log=False),
                  names(titles), marks, lines, (), 520, 60 + 22 * len(titles))  # fmt: skip
    text = (
        "Test accuracy of the study's models: squares as printed, circles ours (hollow: with the "
        "backbone's native preprocessing). Models without weights here have no circle."
    )
    return Picture("study", text, [panel])


SECTIONS: Final = (
    Section(70, "The study beside ours", "its printed figures, repeated", study),
    Section(72, "What dominates the study's models", "more accurate and no more costly",
            study_front),
    Section(74, "Ablation", "what each change to a recipe does", ablation),
    Section(76, "The study's conclusions", "each compared with the rows", conclusions),
)  # fmt: skip
