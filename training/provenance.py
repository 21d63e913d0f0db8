"""Provenance of a training: machine, code and library versions."""

import importlib.metadata
import platform
import shutil
import subprocess
from typing import Final

import keras

from cifar10.environment import PROJECT_ROOT
from cifar10.machine import cpu_name, usable_cores

_PACKAGES: Final = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",)}
"""Distributions that may provide a Keras backend, by backend (default: the backend's name)."""


def git_commit() -> str:
    """Return the project's commit: ``-dirty`` if its code was changed, ``unknown`` without git.

    Only changes to the packages used in training count.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    changes = _git("status", "--porcelain", "--", "cifar10", "training")
    return commit if changes == "" else f"{commit}-dirty"


def hardware() -> str:
    """Return the processor's model, the usable cores, and the GPUs that Keras finds."""
    parts = [f"{cpu_name()}, {usable_cores()} cores"]
    gpus = _gpus()
    if gpus:
        parts.append(f"GPUs: {', '.join(gpus)}")
    return "; ".join(parts)


def _gpus() -> list[str]:
    if keras.backend.backend() != "jax":
        return list(keras.distribution.list_devices("gpu"))
    import jax  # asked for GPUs where there are none, it raises

    return [device.device_kind for device in jax.devices() if device.platform == "gpu"]


def library_versions() -> dict[str, str]:
    """Return the versions of Python, Keras, its backend and NumPy, by name."""
    backend = keras.backend.backend()
    versions = {
        "python": platform.python_version(),
        "keras": importlib.metadata.version("keras"),
        "numpy": importlib.metadata.version("numpy"),
    }
    for distribution in _PACKAGES.get(backend, (backend,)):
        try:
            versions[backend] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        break
    return versions


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(PROJECT_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
