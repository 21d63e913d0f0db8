"""Environment variables for the locations of data, read only in this module.

- ``CIFAR10_DATA``: the dataset (a folder, tar, zip, npz, or the word ``synthetic``). Default: the
  official archive.
- ``CIFAR10_MODELS``: the model store. Default: the project's own ``models/``. If the project is
  installed as a package: ``models/`` in the current folder, or, if that contains no model, the
  released models in the package.
- ``CIFAR10_RESULTS``: the measurements. Default: ``results/``, in the project or the current
  folder.
- ``CIFAR10_WEIGHTS``: a folder of ``<backbone>.weights.h5``. Default: Keras downloads them.
- ``CIFAR10_CACHE``: decoded datasets and cached features. Default: ``~/.cache/cifar10``.
- ``CIFAR10_ENGINE``: the engine that runs the models, ``onnxruntime`` (the default) or
``openvino``.
  It applies to ``predict``, ``bench`` and the server, not to training and export: golden answers
  are ONNX Runtime's.
- ``MLFLOW_TRACKING_URI``: where MLflow records trainings and exports. Default: nowhere.

(The server's own settings are in ``service/settings.py``.)
"""

import os
from pathlib import Path
from typing import Final, Literal, get_args

from cifar10.errors import SettingsError

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent

PACKAGED_MODELS: Final = Path(__file__).resolve().parent / "models"
"""Folder of the released models inside an installed package, put there by ``pyproject.toml``."""

_PACKAGES: Final = ("site-packages", "dist-packages")

EFFICIENCY_FILE: Final = "efficiency.json"
"""File name of the efficiency table in the results folder: written by ``bench``, shown by
``service``."""


Engine = Literal["onnxruntime", "openvino"]
"""Library that runs a model."""


def engine() -> Engine:
    """Return the engine that ``CIFAR10_ENGINE`` names, or ONNX Runtime.

    Raises:
        SettingsError: there is no such engine.
    """
    wanted = os.environ.get("CIFAR10_ENGINE") or "onnxruntime"
    for known in get_args(Engine):
        if wanted == known:
            found: Engine = known
            return found
    message = (
        f"CIFAR10_ENGINE={wanted!r} is not an engine; expected {' or '.join(get_args(Engine))}"
    )
    raise SettingsError(message)


def data_source() -> str | None:
    """Return the value of ``CIFAR10_DATA``, or None."""
    return os.environ.get("CIFAR10_DATA") or None


def home_dir() -> Path:
    """Return the project's own folder, or the current folder if it is installed as a package."""
    return Path.cwd() if PROJECT_ROOT.name in _PACKAGES else PROJECT_ROOT


def own_models_dir() -> Path:
    """Return the model store to write to: ``CIFAR10_MODELS``, or ``models/``."""
    return Path(os.environ.get("CIFAR10_MODELS") or home_dir() / "models")


def models_dir() -> Path:
    """Return the model store to read from: :func:`own_models_dir`, or the released models of the
    installed package if ``CIFAR10_MODELS`` is not set and that folder contains no model."""
    own = own_models_dir()
    if os.environ.get("CIFAR10_MODELS") or any(own.glob("*/card.json")):
        return own
    return PACKAGED_MODELS if PACKAGED_MODELS.is_dir() else own


def results_dir() -> Path:
    """Return the results folder: ``CIFAR10_RESULTS``, or ``results/``."""
    return Path(os.environ.get("CIFAR10_RESULTS") or home_dir() / "results")


def weights_dir() -> Path | None:
    """Return the folder of pretrained weights: ``CIFAR10_WEIGHTS``, or None."""
    found = os.environ.get("CIFAR10_WEIGHTS")
    return Path(found) if found else None


def tracking_uri() -> str | None:
    """Return the value of ``MLFLOW_TRACKING_URI``, or None."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def cache_dir() -> Path:
    """Return the cache folder: ``CIFAR10_CACHE``, or ``~/.cache/cifar10``."""
    return Path(os.environ.get("CIFAR10_CACHE") or Path.home() / ".cache" / "cifar10")
