"""Connect to a Ray cluster, for work that takes one machine hours. Needs the extra ``ray``.

All machines of the cluster need this package, and a folder shared at the same path for what they
read and write.
"""

import logging
from typing import Any, Final

from cifar10.errors import Cifar10Error

LOCAL: Final = "local"
"""Address of a cluster of this machine alone, started for one command."""


class RayUnavailableError(Cifar10Error):
    """Ray is not installed, or the cluster cannot be reached."""


def connect(address: str) -> Any:
    """Return the module ``ray``, connected to the cluster at ``address``.

    Raises:
        RayUnavailableError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        message = "Ray is not installed: pip install 'cifar10-efficiency[ray]'"
        raise RayUnavailableError(message) from error
    if not ray.is_initialized():
        try:
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=False if address == LOCAL else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            message = f"no Ray cluster at {address!r}: {error}. Start one: ray start --head"
            raise RayUnavailableError(message) from error
    return ray
