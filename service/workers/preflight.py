"""Checks made once before any worker starts, so that a server that cannot work does not start.

A failing worker is restarted again and again, at growing intervals. So everything that can be
checked beforehand is: the settings, the choice of models, every card and digest, and, if CUDA or
OpenVINO is required, that models actually execute on CUDA, or that OpenVINO is installed. A fault
that only a worker can find, such as a wrong golden answer, leaves that worker running but not
ready, with the reason at ``/readyz`` and in the log.
"""

import subprocess
import sys

from cifar10.environment import PROJECT_ROOT, models_dir
from cifar10.errors import Cifar10Error, ProviderUnavailableError
from cifar10.openvino_session import check_openvino
from cifar10.store import ModelStore
from service.choice import choose
from service.models import load_model, predictor_options
from service.settings import Settings, read_settings
from service.telemetry.tracing import check_exporter, is_configured


def check_before_start(settings: Settings, store: ModelStore) -> None:
    """Refuse settings or a store with which no worker could become ready.

    Raises:
        SettingsError: tracing is configured but its exporter is missing.
        StoreError: a model is missing or is not the one that its card describes.
        ProviderUnavailableError: CUDA is required but models do not execute on it, or OpenVINO is
            but is not installed.
    """
    if settings.engine == "openvino":
        check_openvino()
    if is_configured():
        check_exporter()
    for name in choose(settings, store).names:
        store.load(name)
    if settings.device == "cuda":
        _try_in_another_process()


def _try_in_another_process() -> None:
    # A CUDA context takes hundreds of megabytes of GPU memory until its process ends.
    command = [sys.executable, "-m", "service.workers.preflight"]
    probe = subprocess.run(  # noqa: S603 — our own module, no input
        command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if probe.returncode != 0:
        lines = probe.stderr.strip().splitlines()
        raise ProviderUnavailableError(lines[-1] if lines else "the CUDA probe failed silently")


def main() -> None:
    """Load the default model, or both of ``auto``, exactly as a worker does. On failure print one
    line and exit with 1."""
    settings = read_settings()
    store = ModelStore(models_dir())
    try:
        for name in choose(settings, store).default_names:
            load_model(store, name, predictor_options(settings))
    except Cifar10Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
