"""List what has been measured, when and where."""

from pathlib import Path

from bench.commands import options
from bench.commands.listing import found_in, listing_record
from bench.rows.selection import newest
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_table


@make_command(
    __name__,
    __doc__,
    """\
cifar10 ls
cifar10 ls --results /media/usb/results
cifar10 ls --json
""",
)
@options.results
@shared.as_json
def command(results: Path, as_json: bool) -> int:
    """Print the rows that count, one line for each machine, model and kind."""
    found = found_in(results)
    if as_json:
        print_json(listing_record(found))
        return OK
    lines = []
    for machine in found:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for row in newest(machine.rows):
            groups.setdefault((row.model, row.digest, row.kind), []).append(row.created)
        for (model, digest, kind), created in sorted(groups.items()):
            when = max(created)[:19].replace("T", " ")
            lines.append([model, digest[:8] or "–", kind, str(len(created)), when, machine.name])
    print_table(
        ["Model", "Digest", "Kind", "Rows", "Newest (UTC)", "Machine"], lines, right=("Rows",)
    )
    return OK
