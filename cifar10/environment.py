"""The environment variables that say where things are, read here and nowhere else.

- ``CIFAR10_DATA``: the dataset (a folder, tar, zip, npz, or the word ``synthetic``); without it,
  the official archive.
- ``CIFAR10_MODELS``: the model store; without it, the project's own ``models/``; where the project
  is installed as a package, ``models/`` in the current folder, or, where that has no model, the
  released models that are part of the package.
- ``CIFAR10_RESULTS``: what was measured; without it, ``results/``, likewise.
- ``CIFAR10_WEIGHTS``: a folder of ``<backbone>.weights.h5``; without it, Keras downloads them.
- ``CIFAR10_CACHE``: decoded datasets and cached features; without it, ``~/.cache/cifar10``.

(The server's own settings are in ``service/settings.py``.)
"""

import os
from pathlib import Path
from typing import Final

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent

PACKAGED_MODELS: Final = Path(__file__).resolve().parent / "models"
"""The released models inside an installed package: ``pyproject.toml`` puts them there."""

_PACKAGES: Final = ("site-packages", "dist-packages")

EFFICIENCY_FILE: Final = "efficiency.json"
"""The efficiency table in the folder of results: written by ``bench``, shown by ``service``."""


def data_source() -> str | None:
    """``CIFAR10_DATA``, or None."""
    return os.environ.get("CIFAR10_DATA") or None


def home_dir() -> Path:
    """The project's own folder; where it is installed as a package, the current folder."""
    return Path.cwd() if PROJECT_ROOT.name in _PACKAGES else PROJECT_ROOT


def own_models_dir() -> Path:
    """The model store that is written to: ``CIFAR10_MODELS``, or ``models/``."""
    return Path(os.environ.get("CIFAR10_MODELS") or home_dir() / "models")


def models_dir() -> Path:
    """The model store that is read: :func:`own_models_dir`, or, where that is not named and has no
    model, the released models of the installed package."""
    own = own_models_dir()
    if os.environ.get("CIFAR10_MODELS") or any(own.glob("*/card.json")):
        return own
    return PACKAGED_MODELS if PACKAGED_MODELS.is_dir() else own


def results_dir() -> Path:
    """``CIFAR10_RESULTS``, or ``results/``."""
    return Path(os.environ.get("CIFAR10_RESULTS") or home_dir() / "results")


def weights_dir() -> Path | None:
    """``CIFAR10_WEIGHTS``, or None."""
    found = os.environ.get("CIFAR10_WEIGHTS")
    return Path(found) if found else None


def cache_dir() -> Path:
    """``CIFAR10_CACHE``, or ``~/.cache/cifar10``."""
    return Path(os.environ.get("CIFAR10_CACHE") or Path.home() / ".cache" / "cifar10")
