"""List the measured models: one line a model and machine."""

from pathlib import Path

from bench.commands import options
from bench.commands.listing import found_in, listing_record
from bench.rows.row import Row
from bench.rows.selection import released_digests
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_table
from cifar10.environment import models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 ls
cifar10 ls --results /media/usb/results
cifar10 ls --json                               every row, without its samples
""",
)
@options.results
@shared.as_json
def command(results: Path, as_json: bool) -> int:
    """Print a line for each model on each machine."""
    found = found_in(results)
    if as_json:
        print_json(listing_record(found))
        return OK
    digests = released_digests(models_dir())
    lines = []
    for machine in found:
        models: dict[str, list[Row]] = {}
        for row in machine.rows:
            models.setdefault(row.model or "(none)", []).append(row)
        for model, rows in sorted(models.items()):
            files = {row.digest for row in rows if row.digest}
            current = "yes" if digests.get(model, "-") in files else "no"
            newest = max(row.created for row in rows)[:10]
            kinds = len({row.kind for row in rows})
            lines.append([model, str(kinds), str(len(rows)), newest, current, machine.name])
    print_table(
        ["Model", "Kinds", "Rows", "Newest", "In store", "Machine"], lines, right=("Kinds", "Rows")
    )
    return OK
