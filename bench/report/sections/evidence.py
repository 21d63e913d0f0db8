"""The report's sections on how far accuracy can be trusted and what running a model takes."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from bench.report.columns import FLOORS
from bench.report.formats import (
    NOTHING,
    count,
    markdown_table,
    millions,
    numbers_after_name,
    percent,
    short_provider,
    significant,
)
from bench.report.recommend import comparable, paired_test, pick_for_budgets, reaches, ship, why
from bench.rows.files import MachineResults
from bench.rows.kinds.accuracy import SEVERITIES, mean_corrupted_accuracy
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult
from bench.statistics.samples import median
from cifar10.accuracy import wilson_interval

LEAST: Final = f"at least {percent(FLOORS[-1][0], 0)} %"
"""What a model must reach to be recommended."""

HOW_TO_MAKE: Final = (
    "More models are measured than `models/` holds. Any is made by `cifar10 train NAME "
    "&& cifar10 export NAME`, its int8 variant by `cifar10 export NAME --int8`."
)
"""Where a model that is recommended is to be had: rows are kept of more models than are shipped."""

MOST_PAIRED: Final = 8
"""Models compared with each other, the most accurate ones: more pairs than theirs say nothing."""


def budgets(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Which model to ship for which budget."""
    picks = pick_for_budgets(models)
    if not any(pick.model for pick in picks):
        return ""
    rows = [
        [
            pick.budget.title,
            ship(pick),
            why(pick),
            reaches(pick.model),
        ]
        for pick in picks
    ]
    table = markdown_table(
        ["Budget", f"Ship ({LEAST})", "Why", "Floor reached"], rows, ["left"] * 4
    )
    return f"{table}\n\n{HOW_TO_MAKE}"


def paired(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """McNemar's test between the most accurate models."""
    rows = []
    for first, second in combinations(one_of_each(comparable(models))[:MOST_PAIRED], 2):
        test = paired_test(first, second)
        if test is not None:
            rows.append(
                [
                    f"{first.model} – {second.model}",
                    f"{test.difference * 100:+.2f} "
                    f"({test.low * 100:+.2f} to {test.high * 100:+.2f})",
                    count(test.only_first),
                    count(test.only_second),
                    p_value(test.p_value),
                    "yes" if test.is_real else "cannot be told",
                ]
            )
    if not rows:
        return ""
    header = [
        "Pair",
        "Difference, points (95 % interval)",
        "Only the first right",
        "Only the second right",
        "p",
        "Real?",
    ]
    return (
        "McNemar's test on the same images, exact binomial up to 1,000 images that differ. Each "
        "pair is tested at 5 %; with many pairs some will seem to differ by chance. It is about "
        "these trained files, not about training the recipe again.\n\n"
        + markdown_table(header, rows, numbers_after_name(header))
    )


def p_value(p: float) -> str:
    """``0.032``; below a ten-thousandth only that."""
    return "< 0.0001" if p < 1e-4 else significant(p, 2)


def calibration(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Expected calibration error, and the reliability plot."""
    rows = []
    for model in models:
        found = model.accuracy.reliability if model.accuracy else None
        if found is None:
            continue
        rows.append(
            [
                _name(model, models),
                significant(found.expected_calibration_error * 100),
                f"{found.overconfidence * 100:+.1f}",
                significant(found.log_loss),
                count(sum(found.counts)),
                str(len(found.counts)),
            ]
        )
    if not rows:
        return ""
    header = [
        "Model",
        "ECE, points",
        "Confidence minus accuracy, points",
        "Log loss, nats",
        "Images",
        "Bins",
    ]
    text = (
        "Of the answers given with 80 % confidence, are 80 % right? The expected calibration error "
        "(ECE; Guo et al. 2017) is the mean distance of the two. Above zero in the third column "
        "the model promises too much.\n\n"
    )
    return _with(
        text + markdown_table(header, rows, numbers_after_name(header)), pictures, "calibration"
    )


def robustness(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Accuracy on corrupted copies."""
    tested = [model for model in models if model.robustness]
    if not tested:
        return "Not measured here. `cifar10 bench robustness` does it."
    kinds = list(dict.fromkeys(one.corruption for model in tested for one in model.robustness))
    rows = []
    for model in tested:
        by_kind = {one.corruption: one for one in model.robustness}
        first = model.robustness[0]
        low, high = wilson_interval(first.clean_correct, first.images)
        rows.append(
            [
                _name(model, models),
                f"{percent(first.clean_correct / first.images, 1)} "
                f"({percent(low, 1)}–{percent(high, 1)})",
                percent(mean_corrupted_accuracy(model.robustness), 1),
                *(
                    " ".join(percent(c / by_kind[kind].images, 1) for c in by_kind[kind].correct)
                    if kind in by_kind
                    else NOTHING
                    for kind in kinds
                ),
                count(first.images),
            ]
        )
    header = ["Model", "Undamaged, % (95 % interval)", "Mean of all damaged, %", *kinds, "Images"]
    strengths = [
        f"{one.corruption}: {one.parameter} {', '.join(f'{value:g}' for value in one.strengths)}"
        for one in tested[0].robustness
    ]
    text = (
        f"Top-1 in per cent on copies damaged at severities {SEVERITIES[0]} to {SEVERITIES[-1]}, "
        "made here, seeded, with the kinds and strengths of CIFAR-10-C (Hendrycks and Dietterich "
        "2019); not CIFAR-10-C scores, because five of its nineteen kinds and the images are our "
        f"own. {'; '.join(strengths)}. Recompressing an image that was a JPEG already need not get "
        "worse with every step of quality: the two grids of rounding interfere.\n\n"
    )
    return _with(
        text + markdown_table(header, rows, numbers_after_name(header)), pictures, "robustness"
    )


def resources(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Parameters by kind, activation memory, resident memory, start-up, energy."""
    weighed = [model for model in models if model.resources is not None or model.cost is not None]
    if not weighed:
        return ""
    rows = []
    for model in weighed:
        cost, found = model.cost, model.resources
        starts = found.starts if found else ()
        rows.append(
            [
                _name(model, models),
                f"{count(cost.parameters_trainable)} + "
                f"{count(cost.parameters_total - cost.parameters_trainable)}"
                if cost
                else NOTHING,
                millions(cost.macs if cost else None),
                millions(cost.size_bytes if cost else None),
                *(
                    significant(value / 1024) if value is not None else NOTHING
                    for value in (
                        (found.activation_bytes_largest, found.activation_bytes_total)
                        if found
                        else (None, None)
                    )
                ),
                millions(median([one.peak_resident_bytes for one in starts]) if starts else None),
                millions(
                    median(
                        [one.resident_bytes_ready - one.resident_bytes_libraries for one in starts]
                    )
                    if starts
                    else None
                ),
                significant(median([one.session_ns / 1e6 for one in starts]) if starts else None),
                significant(median([one.ready_ns / 1e9 for one in starts]) if starts else None),
                _joules(model),
            ]
        )
    header = [
        "Model",
        "Parameters, trainable + not",
        "MACs, M",
        "File, MB",
        "Largest node's activations, KiB",
        "All activations, KiB",
        "Peak memory, MB",
        "Of it the model, MB",
        "Loading, ms",
        "Start to first answer, s",
        "Images per joule",
    ]
    text = (
        "Activations: one image, from ONNX Runtime's profile of the optimised graph: the inputs "
        "and outputs of the node that has most (a lower bound of what is live at once), and the "
        "outputs of all nodes. Memory and start-up: a fresh process with the predictor alone, "
        "median of three; peak resident memory with libraries, after a batch of 32. Images per "
        "joule: of the whole processor package (RAPL) or GPU (NVML), idle power included.\n\n"
    )
    note = ""
    if not any(model.resources for model in models):
        note = "\nMemory and start-up are not measured here. `cifar10 bench resources` does it."
    elif not any(model.resources and model.resources.energy_source for model in models):
        note = (
            "\nEnergy: not available on this machine; it shows neither RAPL "
            "(`/sys/class/powercap`) nor NVML."
        )
    return text + markdown_table(header, rows, numbers_after_name(header)) + note


def training(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What training took and gave."""
    rows = []
    without = []
    for model in _once(models):
        found = model.training
        if found is None:
            continue
        if not found.epochs and not (model.cost and model.cost.random_weights):
            without.append(f"`{model.model}`")
        rows.append(
            [
                model.model,
                str(len(found.seconds_per_epoch)),
                str(found.best_epoch),
                percent(found.train_accuracy),
                percent(found.validation_accuracy),
                percent(found.test_accuracy),
                significant(sum(found.seconds_per_epoch) / 60),
                model.cost.training_hardware if model.cost else NOTHING,
            ]
        )
    if not rows:
        return ""
    header = [
        "Model",
        "Epochs",
        "Kept",
        "Train, %",
        "Validation, %",
        "Test, %",
        "Minutes",
        "Hardware",
    ]
    text = "Accuracies of the kept weights, from the card.\n\n"
    text += markdown_table(header, rows, numbers_after_name(header))
    if without:
        text += (
            f"\nNo curve for {', '.join(without)}: the store holds no `history.csv` of it, only "
            "the card."
        )
    return _with(text, pictures, "training")


def _once(models: Sequence[ModelResult]) -> list[ModelResult]:
    """Each model once, whatever providers ran it."""
    return list({model.model: model for model in reversed(models)}.values())[::-1]


def _joules(model: ModelResult) -> str:
    found = model.resources
    if found is None:
        return NOTHING
    rate = found.images_per_joule
    return "not available" if rate is None else f"{significant(rate)} ({found.energy_source})"


def _with(text: str, pictures: Mapping[str, str], name: str) -> str:
    picture = pictures.get(name)
    return f"{text.rstrip()}\n\n{picture}" if picture else text


def _name(model: ModelResult, models: Sequence[ModelResult]) -> str:
    """The model's name; with its provider where the same model ran on several."""
    if sum(other.model == model.model for other in models) > 1:
        return f"{model.model}, {short_provider(model.provider)}"
    return model.model
