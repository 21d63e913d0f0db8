"""The commands that measure nothing: report, list, show, compare."""

import argparse
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from bench.commands.console import results_table
from bench.commands.listing import (
    as_json,
    comparison_table,
    listing_record,
    row_record,
    rows_about,
    rows_table,
    side_of,
)
from bench.commands.outcomes import ERROR, OK, REGRESSION, standard_output
from bench.compare.findings import Tolerance, compare
from bench.report.build import prepare, stale_files, write_report
from bench.rows.files import MachineResults, read_results
from cifar10.errors import BenchError


def report(options: argparse.Namespace, errors: Console) -> int:
    """Render the report, or say what is stale."""
    reports = prepare(read_results(options.results), options.results)
    output = Console()
    if not options.check:
        for path in write_report(reports, options.output):
            output.print(f"wrote {path}", highlight=False, soft_wrap=True)
        return OK
    stale = stale_files(reports, options.output)
    for path in stale:
        errors.print(f"stale: {path}. Run: python -m bench report", soft_wrap=True)
    return ERROR if stale else OK


def ls(options: argparse.Namespace, errors: Console) -> int:
    """What has been measured."""
    found = _found(options)
    if options.json:
        print(as_json(listing_record(found)))  # noqa: T201 - for a program, not for a person
    else:
        standard_output().print(results_table(found))
    return OK


def show(options: argparse.Namespace, errors: Console) -> int:
    """The rows of a model or of a run."""
    rows = [row for machine in _found(options) for row in machine.rows]
    about = rows_about(rows, options.name, options.results)
    if options.json:
        print(as_json([row_record(row, whole=True) for row in about]))  # noqa: T201 - as above
    else:
        standard_output().print(rows_table(about))
    return OK


def compare_rows(options: argparse.Namespace, errors: Console) -> int:
    """What changed, and is it real?"""
    before, after = (side_of(side, options.results) for side in (options.before, options.after))
    tolerance = Tolerance(options.tolerance / 100, options.accuracy_tolerance)
    comparison = compare(before, after, tolerance)
    if not comparison.findings and not comparison.failures:
        message = "the two sides have nothing in common: " + "; ".join(
            (*comparison.notes, *comparison.only_one_side)
        )
        raise BenchError(message)
    if options.json:
        record = {**asdict(comparison), "regression": comparison.is_regression}
        print(as_json(record))  # noqa: T201 - as above
    else:
        output = standard_output()
        output.print(comparison_table(comparison))
        for line in (*comparison.failures, *comparison.only_one_side, *comparison.notes):
            output.print(escape(line), highlight=False, soft_wrap=True)
        output.print("regression" if comparison.is_regression else "no regression")
    return REGRESSION if comparison.is_regression else OK


def _found(options: argparse.Namespace) -> list[MachineResults]:
    found = read_results(options.results)
    if not found:
        message = f"there are no rows in {options.results}. Measure first: python -m bench run"
        raise BenchError(message)
    return found
