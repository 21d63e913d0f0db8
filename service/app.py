"""The BentoML service that ``bentoml serve`` starts, with our edge in front of its application.

BentoML provides the command line, the listening socket, builds and containers. Requests bypass its
middleware, which costs more than the model does and enforces no limits. On Linux, the one worker
that BentoML starts becomes the supervisor of our workers (:mod:`service.workers.supervisor`); on
other systems BentoML's workers serve requests themselves.
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
from service.rpc.port import rpc_address_of
from service.settings import PREFIX, Settings, read_settings
from service.telemetry.logs import configure_logging
from service.workers.bentoml_host import prepare_bentoml
from service.workers.board import Place, inherited_board, leave_board
from service.workers.listening import default_host, listening_host
from service.workers.preflight import check_before_start
from service.workers.supervisor import CAN_FORK, Supervisor, leave_parent


def _settings() -> Settings:
    try:
        return read_settings()
    except SettingsError as error:
        raise BentoMLException(str(error)) from error  # BentoML prints it as one line


SETTINGS = _settings()


class EdgeService(bentoml.Service[Any]):  # type: ignore[misc]  # BentoML is not typed to us
    """BentoML service whose requests are answered by :class:`service.edge.Edge`."""

    def inject_config(self) -> None:
        """Prepare BentoML. It calls this method before it starts, serves or builds a service."""
        prepare_bentoml()
        super().inject_config()

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the application of one worker process. In a process that BentoML started with a
        socket, do not return: supervise our workers until the server is stopped."""
        configure_logging()
        command = click.get_current_context(silent=True)
        behind = super().to_asgi(is_main)
        if not CAN_FORK or command is None or command.params.get("fd") is None:
            return _edge(behind, Place.alone(), new_key())
        from service.workers.server import Launch, run_worker  # its imports need Linux

        said = {
            name: value
            for name, value in command.params.items()
            if command.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        launch = Launch.from_options(said, SETTINGS)

        key = new_key()
        board = inherited_board(SETTINGS.workers)
        rpc_address = rpc_address_of(board, listening_host(launch.descriptor), SETTINGS.grpc_port)

        def work(place: Place, lifeline: int) -> None:
            edge = _edge(behind, place, key)
            run_worker(edge, launch, SETTINGS, place, lifeline, rpc_address)

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
    # Off, because the edge does these itself, and BentoML's metrics use request data as labels.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Cifar10:
    """CIFAR-10 image classification."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def refuse_to_start_broken() -> None:
        """Check settings and store once, in the supervisor, where a failure stops startup."""
        try:
            check_before_start(SETTINGS, ModelStore(models_dir()))
        except Cifar10Error as error:
            raise BentoMLException(str(error)) from error
        configure_logging()
        # Fix the number of workers for all processes that this one starts.
        os.environ[f"{PREFIX}WORKERS"] = str(SETTINGS.workers)
        leave_board(SETTINGS.workers)
        leave_parent()
