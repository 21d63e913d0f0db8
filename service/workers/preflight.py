"""Checks made once before any worker starts, so that a server that cannot work does not start.

A worker that fails is restarted for ever, at growing intervals. So everything that can be known
before is checked before: the settings, the choice of models, every card and digest, and, where CUDA
is demanded, that it really executes. A fault that only a worker can find (a golden answer that
differs) leaves that worker running and unready, with the reason at ``/readyz`` and in the log.
"""

import subprocess
import sys

from cifar10.environment import PROJECT_ROOT, models_dir
from cifar10.errors import Cifar10Error, ProviderUnavailableError
from cifar10.store import ModelStore
from service.models import choose, load_model, predictor_options
from service.settings import Settings, read_settings
from service.telemetry.tracing import check_exporter, is_configured


def check_before_start(settings: Settings, store: ModelStore) -> None:
    """Refuse settings or a store with which no worker could become ready.

    Raises:
        SettingsError: spans are to be sent and cannot be.
        StoreError: a model is missing, or not the one that its card describes.
        ProviderUnavailableError: CUDA is demanded and is not what executes.
    """
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
    """Load the default model exactly as a worker would; one line and exit 1 where that fails."""
    settings = read_settings()
    store = ModelStore(models_dir())
    try:
        default = choose(settings, store).default
        load_model(store, default, predictor_options(settings))
    except Cifar10Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
