"""What ``ls``, ``show`` and ``compare`` print: rich tables for people, JSON for programs."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from bench.compare.findings import Comparison, Finding
from bench.rows.files import MachineResults, Row, read_results
from cifar10.errors import BenchError

_SHOWN_ITEMS: Final = 6
_SHOWN_CHARACTERS: Final = 48
_COLOURS: Final = {"worse": "red", "better": "green", "unclear": "yellow"}


def as_json(value: Any) -> str:
    """One document, keys in their own order, ending in no newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def side_of(place: str, results: Path) -> list[Row]:
    """The rows that a side of ``compare`` names: a folder of results, or run ids.

    Args:
        place: a folder (of all machines, or of one), or run ids separated by commas, each at
            least as long as to be one run's.
        results: where run ids are looked for.

    Raises:
        BenchError: nothing is there; says what is.
    """
    folder = Path(place)
    if folder.is_dir():
        found = [row for machine in _machines(folder) for row in machine.rows]
        if not found:
            message = f"there are no rows in {folder}"
            raise BenchError(message)
        return found
    rows = [row for machine in read_results(results) for row in machine.rows]
    return [row for wanted in place.split(",") for row in rows_of_run(rows, wanted, results)]


def _machines(folder: Path) -> list[MachineResults]:
    """Of a folder of results, or of one machine's folder."""
    found = read_results(folder)
    if found:
        return found
    return [item for item in read_results(folder.parent) if item.name == folder.name]


def rows_of_run(rows: Sequence[Row], wanted: str, results: Path) -> list[Row]:
    """The rows of the one run whose id begins with ``wanted``.

    Raises:
        BenchError: no run or several.
    """
    runs = dict.fromkeys(row.run_id for row in rows)
    matching = [run for run in runs if wanted and run.startswith(wanted)]
    if len(matching) != 1:
        there = ", ".join(runs) or "none"
        how_many = "several runs begin" if matching else "no run begins"
        message = (
            f"{wanted!r} is no folder, and {how_many} with it in {results} (there are: {there})"
        )
        raise BenchError(message)
    return [row for row in rows if row.run_id == matching[0]]


def rows_about(rows: Sequence[Row], wanted: str, results: Path) -> list[Row]:
    """The rows of the model or of the run named ``wanted``.

    Raises:
        BenchError: neither is there.
    """
    of_model = [row for row in rows if row.model == wanted]
    if of_model:
        return of_model
    models = ", ".join(dict.fromkeys(row.model for row in rows if row.model))
    try:
        return rows_of_run(rows, wanted, results)
    except BenchError as error:
        message = f"{wanted!r} is no model measured here (there are: {models}); as a run: {error}"
        raise BenchError(message) from error


def shortened(value: Any) -> Any:
    """A measurement to look at: long lists and packed samples cut, and marked as cut."""
    match value:
        case Mapping():
            return {key: shortened(item) for key, item in value.items()}
        case str() if len(value) > _SHOWN_CHARACTERS:
            return f"{value[:12]}… ({len(value)} characters)"
        case list() | tuple():
            shown = [shortened(item) for item in value[:_SHOWN_ITEMS]]
            more = len(value) - len(shown)
            return [*shown, f"… {more} more"] if more else shown
        case _:
            return value


def row_record(row: Row, *, whole: bool) -> dict[str, Any]:
    """A row as it is in its file; its samples only with ``whole``."""
    record = dataclasses.asdict(row)
    return record if whole else {**record, "measurement": shortened(record["measurement"])}


def rows_table(rows: Iterable[Row]) -> Table:
    """One line a row: when, what, and the first figures in it."""
    table = Table("When (UTC)", "Run", "Model", "Kind", "Key", "Holds")
    for row in rows:
        record = shortened(dataclasses.asdict(row)["measurement"])
        plain = {key: item for key, item in record.items() if isinstance(item, int | float | str)}
        holds = ", ".join(f"{key} {item}" for key, item in list(plain.items())[:_SHOWN_ITEMS])
        when = row.created[:19].replace("T", " ")
        quick = " (quick)" if row.quick else ""
        table.add_row(when, row.run_id, row.model, row.kind + quick, row.key, holds)
    return table


def listing_record(found: Sequence[MachineResults]) -> list[dict[str, Any]]:
    """``ls --json``: every row's envelope."""
    return [
        {"machine_name": machine.name}
        | {
            field.name: getattr(row, field.name)
            for field in dataclasses.fields(row)
            if field.name not in ("measurement", "versions", "dataset")
        }
        for machine in found
        for row in machine.rows
    ]


def comparison_table(comparison: Comparison) -> Table:
    """One line a finding."""
    table = Table("Model", "What", "B against A", "99 % interval", "Runs", "Verdict", "By")
    for found in comparison.findings:
        colour = _COLOURS.get(found.verdict)
        verdict = f"[{colour}]{found.verdict}[/]" if colour else found.verdict
        runs = f"{found.runs[0]} / {found.runs[1]}"
        low, high = _change(found, found.low), _change(found, found.high)
        change = _change(found, found.change)
        table.add_row(
            found.model, found.what, change, f"{low} … {high}", runs, verdict, found.method
        )
    return table


def _change(found: Finding, value: float) -> str:
    if found.unit == "points":
        return f"{value:+.2f} points"
    return f"{100 * (value - 1):+.1f} %"
