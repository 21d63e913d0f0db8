"""Fetch, check and cache the data set, and describe it.

Without --data or CIFAR10_DATA the official archive is downloaded, once. The dataset is validated
on load: counts, sizes, labels, and the official files' checksums.
"""

from dataclasses import asdict
from typing import Final

import click

from cifar10.commands import options
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json
from cifar10.contract import MAX_SIDE, MIN_SIDE
from training.commands.options import read_dataset

_OWN_SIZE: Final = 64


@make_command(
    __name__,
    __doc__,
    """\
cifar10 data                                    the official archive, downloaded once
cifar10 data --data pictures.tar.xz             your own copy
cifar10 data --data ./flowers --size 64         your own images: a folder for each class
cifar10 data --data synthetic --json            generated images, for trying things out
""",
)
@options.data
@options.data_name
@click.option(
    "--size",
    type=click.IntRange(MIN_SIDE, MAX_SIDE),
    default=_OWN_SIZE,
    show_default=True,
    metavar="PIXELS",
    help="Pixels per side to decode your own images to.",
)
@options.as_json
def command(data: str | None, data_name: str | None, size: int, as_json: bool) -> int:
    """Read the dataset and print its record."""
    dataset = read_dataset(errors(), data, size, data_name)
    record = dataset.record
    if as_json:
        print_json(asdict(record))
        return 0
    for name, value in (
        ("data set", record.name),
        ("source", record.source),
        ("variant", record.variant),
        ("fingerprint", record.fingerprint),
        (
            "images",
            f"{record.train_count:,} train, {record.validation_count:,} validation, "
            f"{record.test_count:,} test",
        ),
        ("classes", ", ".join(dataset.labels)),
    ):
        output().print(f"{name:<12} {value}", soft_wrap=True, markup=False)
    return 0
