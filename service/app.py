"""What ``bentoml serve`` starts: the BentoML service, with our edge in front of its application.

BentoML gives the process model (supervisor, workers, signals), builds and containers. Requests do
not pass through its middleware, which costs more than the model does and limits nothing.
"""

from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from cifar10.environment import EFFICIENCY_FILE, models_dir, results_dir
from cifar10.errors import Cifar10Error, SettingsError
from cifar10.store import ModelStore
from service.edge import Edge
from service.logs import configure_logging
from service.models import ModelSet
from service.preflight import check_before_start
from service.settings import Settings, read_settings


def _settings() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise BentoMLException(str(error)) from error  # which its command line shows as one line


SETTINGS = _settings()


class EdgeService(bentoml.Service[Any]):  # type: ignore[misc]  # BentoML is not typed to us
    """A BentoML service whose requests are answered by :class:`service.edge.Edge`."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """The application of one worker process."""
        configure_logging()
        models = ModelSet(SETTINGS, ModelStore(models_dir()))
        table = results_dir() / EFFICIENCY_FILE
        return Edge(super().to_asgi(is_main), SETTINGS, models, table)


@bentoml.service(
    name="cifar10",
    service_class=EdgeService,
    workers=SETTINGS.workers,
    # Off, because the edge does these itself; and BentoML's metrics take labels from requests.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Cifar10:
    """CIFAR-10 image classification."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def refuse_to_start_broken() -> None:
        """Check the store once, in the supervisor, where a failure ends the program."""
        try:
            check_before_start(SETTINGS, ModelStore(models_dir()))
        except Cifar10Error as error:
            raise BentoMLException(str(error)) from error
