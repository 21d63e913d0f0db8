"""The report's section on faults and attacks, from rows to Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from bench.report.formats import count, markdown_table, numbers_after_name, significant
from bench.rows.files import MachineResults
from bench.rows.kinds.service import ChaosMeasurement
from bench.rows.selection import ModelResult, newest

_TITLES: Final = {
    "kill": "Workers killed under load (`kill -9`)",
    "reload": "Models reloaded under load",
    "fuzz": "Damaged requests",
    "bombs": "Small bodies that ask for much",
    "large": "12-megapixel photos beside 32×32 tiles",
    "soak": "A steady load for long",
}
"""Titles of rows that do not carry one."""

_SUFFIXES: Final = {
    "_requests_per_s": " requests/s",
    "_percent": " %",
    "_ms": " ms",
    "_mb": " MB",
    "_s": " s",
}
"""End of a figure's name → its unit."""


def chaos(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What was done to the service, what was promised, and what came of it."""
    latest = {
        # It is the service that is hurt: of a model that was made anew, the newest trial counts.
        (row.model, row.measurement.trial, row.measurement.workers): (
            row.model, row.created, row.measurement, row.quick
        )
        for row in sorted(newest(results.rows), key=lambda row: (not row.quick, row.created))
        if isinstance(row.measurement, ChaosMeasurement)
    }  # fmt: skip
    if not latest:
        return ""
    found = list(latest.values())
    order = {trial: position for position, trial in enumerate(_TITLES)}
    found.sort(key=lambda one: (order.get(one[2].trial, len(order)), one[2].trial, one[0]))
    header = ["What was done", "Model", "Workers", "Seconds", "Answers", "Promised", "Held"]
    rows = [
        [
            _title(trial),
            model,
            str(trial.workers),
            significant(trial.seconds),
            ", ".join(f"{status}: {count(many)}" for status, many in trial.status_counts.items()),
            trial.promise,
            "yes" if trial.holds else "**no**",
        ]
        for model, _, trial, _ in found
    ]
    align = numbers_after_name(header)
    align[1] = align[4] = align[5] = align[6] = "left"
    figures = "\n".join(
        f"- {_title(trial)} ({created[:10]}{', quick' if quick else ''}): "
        + "; ".join(_figure(name, value) for name, value in trial.figures.items())
        + _outcomes(trial)
        + _broken(trial)
        for _, created, trial, quick in found
    )
    return f"{_CHAOS}\n\n{markdown_table(header, rows, align)}\n{figures}"


def _title(trial: ChaosMeasurement) -> str:
    return trial.title or _TITLES.get(trial.trial, trial.trial)


def _outcomes(trial: ChaosMeasurement) -> str:
    """Inputs by outcome, the most frequent first; every kind of input together."""
    total: Counter[str] = Counter()
    for name, inputs in trial.outcomes.items():
        total[name.partition(": ")[2]] += inputs
    shown = ", ".join(f"{name}: {count(inputs)}" for name, inputs in total.most_common())
    return f". Outcomes: {shown}" if shown else ""


def _broken(trial: ChaosMeasurement) -> str:
    return f". **Did not hold:** {'; '.join(trial.broken)}" if trial.broken else ""


def _figure(name: str, value: float) -> str:
    for suffix, unit in _SUFFIXES.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {significant(value)}{unit}"
    shown = count(value) if value == int(value) else significant(value)
    return f"{name.replace('_', ' ')} {shown}"


_CHAOS: Final = (
    "Real processes and real sockets, each trial on a server of its own; the client runs on the "
    "same machine and takes its share of the cores, so times are those of a machine under full "
    "load. Memory is the proportional set size over all processes of the server."
)
