"""Select and print rows for ``ls``, ``show`` and ``compare``, as tables or as JSON."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.compare.findings import Comparison, Finding
from bench.rows.files import MachineResults, read_results
from bench.rows.machine import read_machine
from bench.rows.row import Row
from cifar10.commands.terminal import output, print_table, print_text
from cifar10.errors import BenchError
from cifar10.suggestions import did_you_mean

_SHOWN_ITEMS: Final = 6
_SHOWN_CHARACTERS: Final = 48
_PROVIDER: Final = re.compile(r"provider=(\w+?)(?:ExecutionProvider)?\b")


def found_in(results: Path) -> list[MachineResults]:
    """Return the rows of all machines.

    Raises:
        BenchError: the folder has no rows.
    """
    found = [machine for machine in read_results(results) if machine.rows]
    if not found:
        message = f"there are no rows in {results}. Measure first: cifar10 bench run"
        raise BenchError(message)
    return found


def chosen_machine(results: Path, wanted: str | None) -> MachineResults:
    """Return the rows of the named machine, else of this one, else of the last one measured.

    Raises:
        BenchError: the machine is unknown, or there are no rows.
    """
    found = {machine.name: machine for machine in found_in(results)}
    if wanted is not None and wanted not in found:
        message = f"no machine {wanted!r} in {results}; there are: {', '.join(found)}."
        raise BenchError(message + did_you_mean(wanted, found))
    here = read_machine().name
    if wanted is None and here in found:
        return found[here]
    last = max(found.values(), key=lambda one: max((row.created for row in one.rows), default=""))
    return found[wanted] if wanted is not None else last


def side_of(place: str, results: Path) -> list[Row]:
    """Return the rows on one side of ``compare``: a folder of results, or run ids.

    Args:
        place: a folder (of all machines, or of one), or comma-separated run ids; a unique prefix
            of an id is enough.
        results: folder in which run ids are looked up.

    Raises:
        BenchError: no row matches; the message lists the choices.
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
    """Return the machines in a folder of results, or in one machine's folder."""
    found = read_results(folder)
    if found:
        return found
    return [item for item in read_results(folder.parent) if item.name == folder.name]


def rows_of_run(rows: Sequence[Row], wanted: str, results: Path) -> list[Row]:
    """Return the rows of the one run whose id begins with ``wanted``.

    Raises:
        BenchError: no run matches, or several do.
    """
    runs = list(dict.fromkeys(row.run_id for row in rows))
    matching = [run for run in runs if wanted and run.startswith(wanted)]
    if len(matching) == 1:
        return [row for row in rows if row.run_id == matching[0]]
    if matching:
        message = f"several runs begin with {wanted!r}: {', '.join(matching)}; type more of the id"
    else:
        near = did_you_mean(wanted, runs)
        message = (
            f"{wanted!r} is no folder, and no run in {results} begins with it; "
            f"there are {len(runs)} runs (cifar10 ls --runs lists them).{near}"
        )
    raise BenchError(message)


def rows_about(rows: Sequence[Row], wanted: str, results: Path) -> list[Row]:
    """Return the rows of the model or run named ``wanted``.

    Raises:
        BenchError: neither exists.
    """
    of_model = [row for row in rows if row.model == wanted]
    if of_model:
        return of_model
    if any(row.run_id.startswith(wanted) for row in rows):
        return rows_of_run(rows, wanted, results)
    measured = list(dict.fromkeys(row.model for row in rows if row.model))
    near = did_you_mean(wanted, measured)
    message = (
        f"{wanted!r} is neither a model measured in {results} nor the start of a run id; "
        f"there are {len(measured)} models (cifar10 ls lists them).{near}"
    )
    raise BenchError(message)


def shortened(value: Any) -> Any:
    """Return a measurement for display, with long lists and packed samples cut and marked."""
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
    """Return a row as its file has it; with ``whole``, its samples too."""
    record = dataclasses.asdict(row)
    return record if whole else {**record, "measurement": shortened(record["measurement"])}


def print_rows(rows: Iterable[Row]) -> None:
    """Print each row: its subject, time and run, and below them its first figures."""
    for row in rows:
        record = shortened(dataclasses.asdict(row)["measurement"])
        plain = {key: item for key, item in record.items() if isinstance(item, int | float | str)}
        holds = ", ".join(f"{key} {item}" for key, item in list(plain.items())[:_SHOWN_ITEMS])
        when = row.created[:19].replace("T", " ")
        quick = " (quick)" if row.quick else ""
        subject = " ".join(part for part in (row.model, row.kind + quick, row.key) if part)
        print_text(f"{when}  {row.run_id}  {subject}", indent=4)
        print_text(f"    {holds}", indent=4)


def listing_record(found: Sequence[MachineResults]) -> list[dict[str, Any]]:
    """Return the record for ``ls --json``: every row's envelope."""
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


def print_comparison(comparison: Comparison) -> None:
    """Print the findings, the unmatched rows and the verdict."""
    if comparison.findings:
        print_table(
            ["Model", "What", "B against A", "99 % interval", "Runs", "Verdict", "By"],
            [_finding_line(found) for found in comparison.findings],
            right=("B against A", "99 % interval"),
            spare=("By", "Runs"),
        )
    for line in (
        *comparison.failures,
        *_folded(comparison.only_one_side),
        *_folded(comparison.notes),
    ):
        print_text(line)
    if not comparison.findings and not comparison.failures:
        output().print("nothing could be compared: the two sides have nothing in common")
    else:
        output().print("regression" if comparison.is_regression else "no regression")


def _folded(lines: Sequence[str]) -> list[str]:
    """Return each reason once, with the number of lines ``WHAT: REASON`` that give it."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        what, colon, reason = line.partition(": ")
        reasons.setdefault(reason if colon else line, []).append(what if colon else "")
    folded = []
    for reason, subjects in reasons.items():
        if len(subjects) == 1:
            folded.append(f"{subjects[0].strip()}: {reason}" if subjects[0] else reason)
        else:
            folded.append(f"{len(subjects)} measurements: {reason} (--json lists them)")
    return folded


def _finding_line(found: Finding) -> list[str]:
    low, high = _change(found, found.low), _change(found, found.high)
    return [
        found.model,
        _PROVIDER.sub(r"\1", found.what),
        _change(found, found.change),
        f"{low} … {high}",
        f"{found.runs[0]} / {found.runs[1]}",
        found.verdict,
        found.method,
    ]


def _change(found: Finding, value: float) -> str:
    if found.unit == "points":
        return f"{value:+.2f} points"
    return f"{100 * (value - 1):+.1f} %"
