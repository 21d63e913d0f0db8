"""The report's section on what ``compare`` notices on this machine."""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.report.formats import markdown_table, numbers_after_name
from bench.rows.files import MachineResults
from bench.rows.kinds.session import SensitivityMeasurement, Trial
from bench.rows.selection import ModelResult, newest


def sensitivity(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """One line a trial, and what follows from them."""
    current = {(model.model, model.digest) for model in models}
    parts = []
    for row in newest(results.rows):
        found = row.measurement
        if isinstance(found, SensitivityMeasurement) and (row.model, row.digest) in current:
            header = ["Side", "Planted", "Compared", "Changed most", "By (99 % interval)", "Gate"]
            table = markdown_table(
                header,
                [_line(trial, found) for trial in found.trials],
                numbers_after_name(header, ("Planted", "Changed most", "Gate")),
            )
            conclusion = "\n".join(f"- {line}" for line in told(found))
            parts.append(f"**{row.model}**: {_method(found)}\n\n{table}\n{conclusion}")
    return "\n\n".join(parts) and f"{_WHY}\n\n" + "\n\n".join(parts)


def told(measurement: SensitivityMeasurement) -> list[str]:
    """What came of it, in sentences."""
    unchanged = sum(trial.planted == "nothing" for trial in measurement.trials)
    lines = [f"{measurement.false_alarms} false alarms in {unchanged} repeats of an unchanged run."]
    for trial in measurement.trials:
        if trial.planted != "nothing":
            seen = "reported" if trial.regression else "NOT reported"
            lines.append(f"{_planted(trial, measurement)}: {seen}.")
    return lines


def _method(found: SensitivityMeasurement) -> str:
    return (
        f"{found.rounds} windows of {found.seconds:g} s on each service, taken in turn, "
        f"{found.users} users, closed loop; tolerances {found.tolerance_percent:g} % of speed and "
        f"{found.tolerance_points:g} points of accuracy. The unchanged server spends "
        f"{found.server_cpu_us:,.0f} µs of CPU on a request; the slower one burns "
        f"{found.planted_delay_us:,.0f} µs more."
    )


def _line(trial: Trial, measurement: SensitivityMeasurement) -> list[str]:
    return [
        trial.side.replace("_", " "),
        _planted(trial, measurement),
        str(trial.findings),
        trial.worst,
        _change(trial),
        "regression" if trial.regression else "passes",
    ]


def _planted(trial: Trial, measurement: SensitivityMeasurement) -> str:
    if trial.planted == "server":
        share = measurement.planted_delay_us / measurement.server_cpu_us
        return f"{share:.0%} more CPU a request"
    if trial.planted == "accuracy":
        return f"{measurement.lost_points:.2f} points less accuracy"
    return "nothing"


def _change(trial: Trial) -> str:
    if not trial.unit:
        return "nothing in common"
    if trial.unit == "points":
        return f"{trial.change:+.2f} ({trial.low:+.2f} … {trial.high:+.2f}) points"
    values = (100 * (value - 1) for value in (trial.change, trial.low, trial.high))
    return "{:+.1f} ({:+.1f} … {:+.1f}) %".format(*values)


_WHY: Final = (
    "`cifar10 bench sensitivity` tries the gate on runs whose truth is known: a baseline held "
    "against repeats of itself, against a server that was slowed, and against a model that was "
    "made worse. The slower server is the same one with CPU burnt for every image; the worse model "
    "is the same one with noise on the logarithms of its answers, so that, as with a real one, "
    "images are both lost and won."
)
