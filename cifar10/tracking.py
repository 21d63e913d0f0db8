"""Record trainings and exports in MLflow, if ``MLFLOW_TRACKING_URI`` names a server or a store.

A run is found again by its tag :data:`TAG`, the digest of the trained Keras file, so that an export
adds to the run of its training. If MLflow fails, one warning says so, nothing more is recorded, and
the work goes on.
"""

import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from cifar10.environment import tracking_uri

EXPERIMENT: Final = "cifar10"
"""Name of the experiment; ``MLFLOW_EXPERIMENT_NAME`` overrides it."""

TAG: Final = "cifar10.keras_sha256"

_DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is away is given up in seconds instead of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Without it, MLflow 3 refuses the file: store that the user has named.
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
"""Settings of MLflow's client, if the environment has none."""

_LONGEST_VALUE: Final = 500
"""Characters of a parameter that every version of MLflow stores."""

_PARAMETERS_AT_ONCE: Final = 100

logger = logging.getLogger(__name__)

Call = Callable[[Any, str], None]
"""Call of MLflow's client with the run's id."""


class Tracker:
    """A run in MLflow, which is created or found when the first thing is recorded.

    Args:
        uri: where MLflow records.
        name: name of the run, if it is created.
        keras_sha256: digest of the trained Keras file, if it is known already.
        parameters: recorded if the run is created; nested ones get names with dots.
    """

    def __init__(
        self, uri: str, name: str, keras_sha256: str | None, parameters: Mapping[str, Any]
    ) -> None:
        self._uri, self._name = uri, name
        self._keras_sha256 = keras_sha256
        self._parameters = parameters
        self._run: tuple[Any, str] | None = None
        self._is_given_up = False
        self.is_new = False
        """Whether the run was created here."""

    def __enter__(self) -> Self:
        """Return itself; the run ends with the block, as failed or killed after an exception."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._run is not None:
            killed = kind is not None and issubclass(kind, KeyboardInterrupt)
            status = "FINISHED" if kind is None else "KILLED" if killed else "FAILED"
            self.record(lambda client, run: client.set_terminated(run, status))

    def open(self) -> bool:
        """Create or find the run and return whether it can be recorded to."""
        self.record(lambda client, run: None)
        return not self._is_given_up

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record figures, at an epoch or at the end."""

        def record(client: Any, run: str) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1_000)
            client.log_batch(run, [Metric(key, one, now, step) for key, one in values.items()])

        self.record(record)

    def files(self, *paths: Path, folder: str | None = None) -> None:
        """Record the files that exist, in a folder of the run's artifacts."""

        def record(client: Any, run: str) -> None:
            for path in paths:
                if path.is_file():
                    client.log_artifact(run, str(path), folder)

        self.record(record)

    def is_of(self, keras_sha256: str) -> None:
        """Record the digest of the trained Keras file, by which an export finds the run."""
        self.record(lambda client, run: client.set_tag(run, TAG, keras_sha256))

    def record(self, call: Call) -> None:
        """Make a call of MLflow; a failure is logged once and ends the recording."""
        if self._is_given_up:
            return
        try:
            if self._run is None:
                self._run = self._find_or_create()
            call(*self._run)
        except Exception as error:  # whatever its client raises must not end a training
            self._is_given_up = True
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            logger.warning(
                "MLflow (MLFLOW_TRACKING_URI=%s) records nothing more of %s: %s",
                self._uri, self._name, reason,
            )  # fmt: skip

    def _find_or_create(self) -> tuple[Any, str]:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self._uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        tags = {}
        if self._keras_sha256 is not None:
            wanted = f"tags.`{TAG}` = '{self._keras_sha256}'"
            runs = client.search_runs([experiment], wanted, max_results=1)
            if runs:
                return client, runs[0].info.run_id
            tags = {TAG: self._keras_sha256}
        run = client.create_run(experiment, run_name=self._name, tags=tags).info.run_id
        self.is_new = True
        parameters = [
            Param(key, str(value)[:_LONGEST_VALUE]) for key, value in _flat("", self._parameters)
        ]
        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            client.log_batch(run, params=parameters[start : start + _PARAMETERS_AT_ONCE])
        return client, run


def check_client() -> None:
    """Check that MLflow's client is installed, if ``MLFLOW_TRACKING_URI`` is set.

    Raises:
        ModuleNotFoundError: the extra ``mlflow`` is missing; the command line says how to install
            it.
    """
    if tracking_uri() is not None and importlib.util.find_spec("mlflow") is None:
        message = "No module named 'mlflow'"
        raise ModuleNotFoundError(message, name="mlflow")


def tracker(
    name: str, parameters: Mapping[str, Any], keras_sha256: str | None = None
) -> Tracker | None:
    """Return a tracker; None if ``MLFLOW_TRACKING_URI`` is not set."""
    uri = tracking_uri()
    if uri is None:
        return None
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    return Tracker(uri, name, keras_sha256, parameters)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each parameter with its path; lists of nested values are numbered."""
    if isinstance(value, Mapping):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        items = list(enumerate(value))
    else:
        yield prefix, json.dumps(value) if isinstance(value, list | tuple) else value
        return
    for key, one in items:
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), one)
