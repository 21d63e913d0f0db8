"""Render REPORT.md, report.html and the README's table from the rows."""

import subprocess
from pathlib import Path

import click

from bench.commands import options
from bench.commands.output import say
from bench.report.build import prepare, stale_files, write_report
from bench.rows.files import read_results
from bench.rows.selection import released_digests
from cifar10.commands import options as shared
from cifar10.commands.command import ERROR, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import output, print_json
from cifar10.environment import PROJECT_ROOT, models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 report                                  REPORT.md, report.html, README's table, CSV
cifar10 report --check                          only check whether they are up to date
""",
)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when something is stale.")
@options.output_folder
@options.results
@shared.as_json
def command(check: bool, output_folder: Path, results: Path, as_json: bool) -> int:
    """Render the report, or list its stale files."""
    reports = prepare(read_results(results), results, released_digests(models_dir()))
    if not check:
        written = write_report(reports, results, output_folder, _commit())
        if as_json:
            print_json({"written": written})
            return OK
        for path in written:
            output().print(f"wrote {path}", soft_wrap=True, markup=False)
        return OK
    stale = stale_files(reports, results, output_folder)
    if as_json:
        print_json({"stale": stale})
    for path in stale:
        say(f"stale: {path}. Run: cifar10 report")
    return ERROR if stale else OK


def _commit() -> str:
    """Return the short hash of the checked-out commit; empty outside a repository."""
    command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
