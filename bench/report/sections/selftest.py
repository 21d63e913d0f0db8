"""Section on the self-test of ``compare`` on this machine."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.session import SensitivityMeasurement, Trial


def sensitivity(shown: Shown) -> Iterator[Block]:
    """One line a trial, and the summary."""
    for position, row in enumerate(shown.rows(SensitivityMeasurement)):
        found = row.measurement
        if position == 0:
            yield _WHY
        yield f"`{row.model}`: {_method(found)}"
        columns: list[Column[Trial]] = [
            words("Side", lambda trial: trial.side.replace("_", " ")),
            words("Planted", partial(_planted, found)),
            Column("Compared", lambda trial: str(trial.findings)),
            words("Changed most", lambda trial: trial.worst),
            Column("By (99 % interval)", _change),
            words("Gate", lambda trial: "regression" if trial.regression else "passes"),
        ]
        yield Table(columns, found.trials, "sensitivity")
        yield "\n".join(f"- {line}" for line in told(found))


def told(measurement: SensitivityMeasurement) -> list[str]:
    """Return the summary, in sentences."""
    unchanged = sum(trial.planted == "nothing" for trial in measurement.trials)
    lines = [f"{measurement.false_alarms} false alarms in {unchanged} repeats of an unchanged run."]
    for trial in measurement.trials:
        if trial.planted != "nothing":
            seen = "reported" if trial.regression else "NOT reported"
            lines.append(f"{_planted(measurement, trial)}: {seen}.")
    return lines


def _method(found: SensitivityMeasurement) -> str:
    return (
        f"{found.rounds} windows of {found.seconds:g} s on each service, taken in turn, "
        f"{found.users} users, closed loop; tolerances {found.tolerance_percent:g} % of speed and "
        f"{found.tolerance_points:g} points of accuracy. The unchanged server spends "
        f"{found.server_cpu_us:,.0f} µs of CPU on a request; the slower one burns "
        f"{found.planted_delay_us:,.0f} µs more."
    )


def _planted(measurement: SensitivityMeasurement, trial: Trial) -> str:
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
    "`cifar10 bench sensitivity` tests `cifar10 compare` on runs whose truth is known: a baseline "
    "against repeats of itself, against a slowed server, and against a worsened model. The slow "
    "server is the same one with CPU burnt for every image; the worse model is the same one with "
    "noise on the logarithms of its probabilities, so that images are both lost and won."
)

SECTIONS: Final = (
    Section(88, "Would `compare` notice?", "false alarms and missed regressions", sensitivity),
)
