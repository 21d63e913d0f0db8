"""Override three of BentoML's defaults before it starts any process.

These defaults are unacceptable on a shared machine, and BentoML has no setting for two of them.
Each is changed at the one place where BentoML looks it up:

- Circus, its process manager, accepts commands without authentication on a TCP port of 127.0.0.1.
  Any user of the machine, or any container of the pod, could read the environment and run programs
  as this user. Here it listens on sockets in a folder that only this user can enter.
- All servers of a user share one metrics folder, which each server empties when it starts. Here
  each server has its own.
- Usage is reported to BentoML's makers. Here it is not.
"""

import os
import sys
from typing import Any, Final

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus
from bentoml._internal.utils.analytics import usage_stats

_CHECK_SECONDS: Final = 10
"""Interval at which Circus checks its processes; BentoML's default."""


def prepare_bentoml() -> None:
    """Override BentoML's defaults in this process. Idempotent."""
    stop_tracking()
    if sys.platform == "win32":  # no Unix sockets
        return
    # Its set() takes the folder itself, and this is called before a build, too, which needs none.
    setattr(BentoMLContainer.prometheus_multiproc_dir, "_provide", _metrics_folder)  # noqa: B010
    circus.create_standalone_arbiter = create_private_arbiter


def stop_tracking() -> None:
    """Disable usage reports unless the environment sets ``BENTOML_DO_NOT_TRACK=False``."""
    os.environ.setdefault(usage_stats.BENTOML_DO_NOT_TRACK, "True")
    usage_stats.do_not_track.cache_clear()  # BentoML's command line has cached the default


def create_private_arbiter(
    watchers: list[Any], *, threaded: bool = False, **options: Any
) -> circus.Arbiter:
    """Create BentoML's process manager, as its ``create_standalone_arbiter`` does, with control
    sockets that only this user can reach."""
    from service.workers.private_folder import private_folder  # its imports need a Unix system

    folder = private_folder()
    kind = circus.ThreadedArbiter if threaded else circus.Arbiter
    return kind(
        watchers,
        endpoint=f"ipc://{folder}/control",
        pubsub_endpoint=f"ipc://{folder}/events",
        check_delay=options.pop("check_delay", _CHECK_SECONDS),
        **options,
    )


def _metrics_folder() -> str:
    from service.workers.private_folder import private_folder

    folder = private_folder() / "metrics"
    folder.mkdir(exist_ok=True)
    return str(folder)
