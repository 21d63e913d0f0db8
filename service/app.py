"""The BentoML service that ``bentoml serve`` starts, with our edge in front of its application.

BentoML provides the command line, the listening socket, builds and containers. Requests do not pass
through its middleware, which costs more than the model does and limits nothing. On Linux, the one
worker that BentoML starts becomes the supervisor of ours (:mod:`service.workers.supervisor`);
elsewhere BentoML's workers serve by themselves.
"""

import os
from typing import Any

import bentoml
import click
from bentoml.exceptions import BentoMLException
from click.core import ParameterSource

from cifar10.environment import EFFICIENCY_FILE, models_dir, results_dir
from cifar10.errors import Cifar10Error, SettingsError
from cifar10.store import ModelStore
from service.edge import Edge
from service.exchange import Application
from service.models import ModelSet
from service.rate_limit import new_key
from service.settings import PREFIX, Settings, read_settings
from service.telemetry.logs import configure_logging
from service.workers.bentoml_host import prepare_bentoml
from service.workers.board import Place, inherited_board, leave_board
from service.workers.listening import default_host
from service.workers.preflight import check_before_start
from service.workers.supervisor import CAN_FORK, Supervisor, leave_parent


def _settings() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise BentoMLException(str(error)) from error  # which its command line shows as one line


SETTINGS = _settings()


class EdgeService(bentoml.Service[Any]):  # type: ignore[misc]  # BentoML is not typed to us
    """A BentoML service whose requests are answered by :class:`service.edge.Edge`."""

    def inject_config(self) -> None:
        """Prepare BentoML, which calls this before it starts, serves or builds a service."""
        prepare_bentoml()
        super().inject_config()

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the application of one worker process. Does not return in a process that BentoML
        started with a socket to serve: that supervises ours, until it is told to end."""
        configure_logging()
        command = click.get_current_context(silent=True)
        behind = super().to_asgi(is_main)
        if not CAN_FORK or command is None or command.params.get("fd") is None:
            return _edge(behind, Place.alone(), new_key())
        from service.workers.server import Launch, run_worker  # what it imports is not everywhere

        said = {
            name: value
            for name, value in command.params.items()
            if command.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        launch = Launch.from_options(said, SETTINGS)

        key = new_key()

        def work(place: Place, lifeline: int) -> None:
            edge = _edge(behind, place, key)
            run_worker(
                edge,
                launch,
                SETTINGS,
                place,
                edge.is_fit,
                lifeline,
                edge.reload,
                edge.count_refusal,
            )

        board = inherited_board(SETTINGS.workers)
        return Supervisor(board, work, launch.drain_seconds).run()


def _edge(behind: Application, place: Place, rate_key: bytes) -> Edge:
    models = ModelSet(SETTINGS, ModelStore(models_dir()))
    table = results_dir() / EFFICIENCY_FILE
    return Edge(behind, SETTINGS, models, table, place, rate_key)


@bentoml.service(
    name="cifar10",
    service_class=EdgeService,
    workers=1 if CAN_FORK else SETTINGS.workers,
    http={"host": default_host()},
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
        configure_logging()
        # What this process found holds for all that it starts, whenever they look.
        os.environ[f"{PREFIX}WORKERS"] = str(SETTINGS.workers)
        leave_board(SETTINGS.workers)
        leave_parent()
