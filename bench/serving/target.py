"""Servers to measure: one started for each model in its turn, or one that is already running.

``bench load`` and ``bench verify`` run from here.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.locust import LoadPlan
from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.in_process import Open
from bench.measure.progress import Progress, labelled
from bench.measure.survey import RunOutcome, Subject, Survey, reference_to
from bench.rows.files import Recorder
from bench.serving.load import Served, ask_what_is_served, measure_load
from bench.serving.process import SERVE, Server
from bench.serving.verify import classes_from_server, compare_answers
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.store import ModelStore


@dataclass(frozen=True)
class Target:
    """The server to measure."""

    models: Path
    """The model store of the servers started here."""
    url: str | None = None
    """URL of a running service; None: start one for each model."""
    device: str = "auto"
    command: Sequence[str] = SERVE
    """Command that starts one."""

    @contextlib.contextmanager
    def serving(self, model: str | None) -> Iterator[tuple[str, Server | None]]:
        """The URL of a server that answers for ``model``, and its process where it is ours."""
        if self.url is not None:
            yield self.url.rstrip("/"), None
            return
        load = [model] if model is not None else []
        with Server(self.models, load=load, device=self.device, command=self.command) as server:
            yield server.url, server


@dataclass(frozen=True)
class Endpoint:
    """A running server that answers for one model."""

    url: str
    process: Server | None
    """Its process; None where it was not started here."""
    model: str | None
    """The model that requests name; None: the server's default."""
    served: Served

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            BenchError: it was started here and has ended.
        """
        if self.process is not None:
            self.process.check_alive()


def each_served(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    stage: str,
    measure: Callable[[Subject, Endpoint], None],
) -> RunOutcome:
    """Measure each model's server in turn; what fails is a row.

    Args:
        target: starts the servers, or names one.
        names: the models; None asks a running server for its default.
        dataset: its first test image is posted to find out what is served.
        recorder: gets the rows.
        stage: what is measured, for failure rows.
        measure: measures one server and adds its rows.

    Raises:
        BenchError: a row could not be written.
    """
    with Survey(recorder) as survey:
        for name in names:
            with (
                survey.attempt(name or target.url or "", stage) as subject,
                target.serving(name) as (url, server),
            ):
                served = ask_what_is_served(url, dataset.test.images[0], name)
                subject.title = subject.model = served.model
                subject.digest = served.digest
                measure(subject, Endpoint(url, server, name, served))
    return survey.outcome


def load_models(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    plan: LoadPlan,
    progress: Progress,
) -> RunOutcome:
    """Put each model under load, and record it.

    Raises:
        BenchError: a row could not be written.
    """

    def measure(subject: Subject, at: Endpoint) -> None:
        measurement, interrupted = measure_load(
            at.url,
            dataset.test.images,
            plan,
            model=at.model,
            device=at.served.device,
            server=at.process,
            progress=labelled(f"load: {at.served.model}, {plan.users} users", progress),
        )
        subject.add(measurement, reference_to(dataset))
        if interrupted:
            raise KeyboardInterrupt

    return each_served(target, names, dataset, recorder, "load", measure)


def verify_models(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    open_model: Open,
    progress: Progress,
) -> RunOutcome:
    """Compare each model's server with this process on every test image, and record it.

    Raises:
        BenchError: a row could not be written.
    """
    store, test = ModelStore(target.models), dataset.test

    def measure(subject: Subject, at: Endpoint) -> None:
        name, stored = at.served.model, store.load(at.served.model)
        card = stored.card
        if card.sha256 != at.served.digest:
            message = (
                f"the server's {name} has SHA-256 {at.served.digest}, the one in {store.root} "
                f"{card.sha256}: they are different models"
            )
            raise BenchError(message)
        executor = open_model(stored)
        in_process = predict_classes(
            executor,
            test.images,
            labelled(f"in process: {name}", progress),
            workers=untimed_workers(executor),
        )
        from_server = classes_from_server(
            at.url,
            test.images,
            model=at.model,
            progress=labelled(f"through the server: {name}", progress),
        )
        claimed = card.accuracy if card.dataset.fingerprint == dataset.record.fingerprint else None
        measurement = compare_answers(
            from_server,
            in_process,
            test.labels,
            device=at.served.device,
            card_accuracy=claimed.test.accuracy if claimed else None,
        )
        subject.add(measurement, reference_to(dataset))
        if not measurement.is_verified:
            subject.blame("verify does not hold: `cifar10 report` says where")

    return each_served(target, names, dataset, recorder, "verify", measure)
