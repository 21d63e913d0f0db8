"""Check this machine and say what to do about each problem.

Checks packages, processor, execution providers, models, data, browser and port.

The exit code is 1 only if there is a problem. A missing optional component is not a problem.
"""

from dataclasses import asdict

import click

from cifar10.commands import options
from cifar10.commands.checks import CHECKS, Finding
from cifar10.commands.command import ERROR, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import colour, print_json, print_text

_MARKS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "problem": ("!!", "red")}


@make_command(
    __name__,
    __doc__,
    """\
cifar10 doctor
cifar10 doctor --json
""",
    """\
Exit codes:
  0    no problem; optional components may be missing
  1    at least one problem; each is printed with its remedy
""",
)
@options.as_json
def command(as_json: bool) -> int:
    """Print every finding, then the number of problems."""
    findings: list[Finding] = []
    for check in CHECKS:
        for found in check():
            findings.append(found)
            if not as_json:
                _print(found)
    problems = sum(found.state == "problem" for found in findings)
    if as_json:
        print_json([asdict(found) for found in findings])
    else:
        click.echo(f"{problems} problem{'' if problems == 1 else 's'}")
    return ERROR if problems else OK


def _print(found: Finding) -> None:
    mark, shade = _MARKS[found.state]
    click.echo(f"{colour(mark, shade)}  ", nl=False)
    print_text(f"{found.subject}: {found.found}", indent=6, taken=4)
    if found.remedy:
        print_text(f"      {found.remedy}", indent=6)
