"""Where a training ran, from which code and with which libraries."""

import importlib.metadata
import platform
import shutil
import subprocess
from typing import Final

import keras

from cifar10.environment import PROJECT_ROOT
from cifar10.machine import cpu_name, usable_cores

_PACKAGES: Final = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "jax": ("jax",)}
"""Keras backend → the distributions that could provide it (otherwise, its own name)."""


def git_commit() -> str:
    """The project's commit, ``-dirty`` when its code was changed since, ``unknown`` without git.

    Only the packages that training runs count.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    changes = _git("status", "--porcelain", "--", "cifar10", "training")
    return commit if changes == "" else f"{commit}-dirty"


def hardware() -> str:
    """The processor's model, the cores this process may use, and GPUs that Keras sees."""
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
    """Name → version of Python, Keras, its backend and NumPy."""
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
