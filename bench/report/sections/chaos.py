"""Section on faults and attacks."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from bench.report.formats import count, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.service import ChaosMeasurement
from bench.rows.row import Row

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


def chaos(shown: Shown) -> Iterator[Block]:
    """Yield each fault, the promise of the service, and whether it held."""
    order = {trial: position for position, trial in enumerate(_TITLES)}

    def place(row: Row[ChaosMeasurement]) -> tuple[int, str, str]:
        trial = row.measurement.trial
        return order.get(trial, len(order)), trial, row.model

    rows = sorted(shown.rows(ChaosMeasurement), key=place)
    if not rows:
        return
    yield (
        "Real processes and real sockets, each trial on its own server. The client shares the "
        "cores, so times are those of a fully loaded machine. Memory is the proportional set size "
        "of all processes of the server."
    )
    columns: list[Column[Row[ChaosMeasurement]]] = [
        words("Fault", lambda row: _title(row.measurement)),
        words("Model", lambda row: row.model),
        Column("Workers", lambda row: str(row.measurement.workers)),
        Column("Seconds", lambda row: significant(row.measurement.seconds)),
        words("Answers", lambda row: _counts(row.measurement.status_counts)),
        words("Held", lambda row: "yes" if row.measurement.holds else "**no**"),
        words("Promise", lambda row: row.measurement.promise),
        words("Figures", _figures, extra=True),
    ]
    yield Table(columns, rows, "faults")


def _title(trial: ChaosMeasurement) -> str:
    return trial.title or _TITLES.get(trial.trial, trial.trial)


def _figures(row: Row[ChaosMeasurement]) -> str:
    """Return the date, all counts, the outcomes (most frequent first), and what broke."""
    trial = row.measurement
    when = f"{row.created[:10]}{', quick' if row.quick else ''}: "
    figures = "; ".join(_figure(name, value) for name, value in trial.figures.items())
    total: Counter[str] = Counter()
    for name, inputs in trial.outcomes.items():
        total[name.partition(": ")[2]] += inputs
    outcomes = f". Outcomes: {_counts(dict(total.most_common()))}" if total else ""
    broken = f". **Did not hold:** {'; '.join(trial.broken)}" if trial.broken else ""
    return f"{when}{figures}{outcomes}{broken}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count(many)}" for name, many in counts.items())


def _figure(name: str, value: float) -> str:
    for suffix, unit in _SUFFIXES.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {significant(value)}{unit}"
    shown = count(value) if value == int(value) else significant(value)
    return f"{name.replace('_', ' ')} {shown}"


SECTIONS: Final = (Section(86, "Fault injection", "what the service survives", chaos),)
