"""The environment variables that say where things are, read here and nowhere else.

- ``CIFAR10_DATA``: the dataset (a folder, tar, zip, npz, or the word ``synthetic``); without it,
  the official archive.
- ``CIFAR10_MODELS``: the model store; without it, the project's own ``models/``.
- ``CIFAR10_RESULTS``: what was measured; without it, the project's own ``results/``.
- ``CIFAR10_WEIGHTS``: a folder of ``<backbone>.weights.h5``; without it, Keras downloads them.
- ``CIFAR10_CACHE``: decoded datasets and cached features; without it, ``~/.cache/cifar10``.

(The server's own settings are in ``service/settings.py``.)
"""

import os
from pathlib import Path
from typing import Final

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent

EFFICIENCY_FILE: Final = "efficiency.json"
"""The efficiency table in the folder of results: written by ``bench``, shown by ``service``."""


def data_source() -> str | None:
    """``CIFAR10_DATA``, or None."""
    return os.environ.get("CIFAR10_DATA") or None


def models_dir() -> Path:
    """``CIFAR10_MODELS``, or the project's own ``models/``."""
    return Path(os.environ.get("CIFAR10_MODELS") or PROJECT_ROOT / "models")


def results_dir() -> Path:
    """``CIFAR10_RESULTS``, or the project's own ``results/``."""
    return Path(os.environ.get("CIFAR10_RESULTS") or PROJECT_ROOT / "results")


def weights_dir() -> Path | None:
    """``CIFAR10_WEIGHTS``, or None."""
    found = os.environ.get("CIFAR10_WEIGHTS")
    return Path(found) if found else None


def cache_dir() -> Path:
    """``CIFAR10_CACHE``, or ``~/.cache/cifar10``."""
    return Path(os.environ.get("CIFAR10_CACHE") or Path.home() / ".cache" / "cifar10")
