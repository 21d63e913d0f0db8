"""Changes to the BentoML process that starts this service, before it starts anything.

BentoML makes three choices that a service on a shared machine cannot live with, and offers no
setting for two of them. Each is changed at the one place where BentoML looks it up:

- Circus, its process manager, takes commands on a TCP port of 127.0.0.1 from anybody, without
  authentication: any user of the machine, or any container of the pod, could read the environment
  and run programs as this user. Here it listens on sockets in a folder that only this user enters.
- All servers of a user share one folder of metrics, which each empties when it starts.
- Usage is reported to BentoML's makers.
"""

import os
import sys
from typing import Any, Final

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus
from bentoml._internal.utils.analytics import usage_stats

_CHECK_SECONDS: Final = 10
"""Between two looks of Circus after its processes; as BentoML has it."""


def prepare_bentoml() -> None:
    """Change this process's BentoML; again has no effect."""
    stop_tracking()
    if sys.platform == "win32":  # has no sockets in folders
        return
    # Its set() takes the folder itself, and this is called before a build, too, which needs none.
    setattr(BentoMLContainer.prometheus_multiproc_dir, "_provide", _metrics_folder)  # noqa: B010
    circus.create_standalone_arbiter = create_private_arbiter


def stop_tracking() -> None:
    """Report no usage unless the environment asks for it with ``BENTOML_DO_NOT_TRACK=False``."""
    os.environ.setdefault(usage_stats.BENTOML_DO_NOT_TRACK, "True")
    usage_stats.do_not_track.cache_clear()  # its command line has asked already


def create_private_arbiter(
    watchers: list[Any], *, threaded: bool = False, **options: Any
) -> circus.Arbiter:
    """Create BentoML's process manager, as its ``create_standalone_arbiter`` does, with control
    sockets that only this user can reach."""
    from service.workers.private_folder import private_folder  # what it imports is not everywhere

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
