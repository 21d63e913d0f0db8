"""Shared parts of the training commands: options, reading the data set, Keras' environment."""

import os
import platform
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem
from rich.console import Console

from cifar10.dataset import Dataset, load_dataset
from cifar10.image_layout import Fit
from cifar10.quiet import import_quietly
from cifar10.sources import RawArrays
from training.progress import decoding_progress
from training.recipes.catalogue import RECIPES

_X86: Final = ("x86_64", "AMD64")
"""Machine types on which oneDNN's convolutions are turned on.

TensorFlow turns them on by default only on processors with AVX-512 VNNI. On an AMD EPYC with AVX2
``compact`` trains in about half of its time with them, and still resumes bit for bit
(docs/experiments.md).
"""

weights_dir = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    help="A folder of BACKBONE.weights.h5, or of Keras' own files (default: CIFAR10_WEIGHTS, else "
    "Keras' cache and its download).",
)

random_weights = click.option(
    "--random-weights",
    is_flag=True,
    help="Use random weights, to measure a backbone's cost: trained on few images, "
    "without an accuracy.",
)


class RecipeName(click.ParamType[str]):
    """Recipe name, completed from the catalogue."""

    name = "recipe"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Accept any name; the catalogue rejects unknown ones."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the recipes that begin with the incomplete name."""
        names = [recipe.name for recipe in RECIPES]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def prepare_keras() -> None:
    """Set the environment that Keras and TensorFlow read when they are imported.

    Errors are raised as exceptions, so TensorFlow's own log lines are not needed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in _X86:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def read_dataset(
    console: Console,
    source: str | None,
    size: int | None = None,
    name: str | None = None,
    fit: Fit = "squash",
) -> Dataset:
    """Read the data set, downloading the official archive if none is named.

    Args:
        console: shows the progress.
        source: value of ``--data``.
        size: pixels per side to decode a user's own images to.
        name: name of a user's own data set.
        fit: how a user's own images are fitted to a square.
    """

    def download() -> RawArrays:
        prepare_keras()
        import_quietly("keras")
        from training.official import download_official

        console.print("fetching the official CIFAR-10 (170 MB, once)")
        return download_official()

    with decoding_progress(console) as progress:
        return load_dataset(
            source,
            shape=(size, size, 3) if size is not None else None,
            name=name,
            fit=fit,
            download=download,
            progress=progress,
        )
