"""Fetch, check and cache the data set, and describe it.

Without --data or CIFAR10_DATA the official archive is downloaded, once. The dataset is validated
on load: counts, sizes, labels, and the official files' checksums.
"""

from dataclasses import asdict

from cifar10.commands import options
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json
from training.commands.options import read_dataset


@make_command(
    __name__,
    __doc__,
    """\
cifar10 data                                    the official archive, downloaded once
cifar10 data --data pictures.tar.xz             your own copy
cifar10 data --data synthetic --json            generated images, for trying things out
""",
)
@options.data
@options.as_json
def command(data: str | None, as_json: bool) -> int:
    """Read the dataset and print its record."""
    record = read_dataset(errors(), data).record
    if as_json:
        print_json(asdict(record))
        return 0
    for name, value in (
        ("source", record.source),
        ("variant", record.variant),
        ("fingerprint", record.fingerprint),
        (
            "images",
            f"{record.train_count:,} train, {record.validation_count:,} validation, "
            f"{record.test_count:,} test",
        ),
    ):
        output().print(f"{name:<12} {value}", soft_wrap=True, markup=False)
    return 0
