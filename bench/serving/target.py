"""Servers to measure: one started for each model in turn, or one already running.

Contains ``bench load`` and ``bench verify``.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.locust import LoadPlan
from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.progress import labelled
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Subject, Survey, reference_to
from bench.serving.load import Served, ask_what_is_served, measure_load
from bench.serving.process import SERVE, Server
from bench.serving.verify import classes_from_server, compare_answers
from cifar10.errors import BenchError


@dataclass(frozen=True)
class Target:
    """The server to measure."""

    models: Path
    """Model store of the servers started here."""
    url: str | None = None
    """URL of a running service; None: start one for each model."""
    device: str = "auto"
    command: Sequence[str] = SERVE
    """Command that starts a server."""

    @contextlib.contextmanager
    def serving(self, model: str | None) -> Iterator[tuple[str, Server | None]]:
        """Yield the URL of a server for ``model``, and its process if it was started here."""
        if self.url is not None:
            yield self.url.rstrip("/"), None
            return
        load = [model] if model is not None else []
        with Server(self.models, load=load, device=self.device, command=self.command) as server:
            yield server.url, server


@dataclass(frozen=True)
class Endpoint:
    """A running server for one model."""

    url: str
    process: Server | None
    """Process of the server; None if it was not started here."""
    model: str | None
    """Model named in requests; None: the server's default."""
    served: Served

    def check(self) -> None:
        """Raise an error if the server has stopped.

        Raises:
            BenchError: it was started here and has ended.
        """
        if self.process is not None:
            self.process.check_alive()


def each_served(
    setup: Setup,
    target: Target,
    names: Sequence[str | None],
    stage: str,
    measure: Callable[[Subject, Endpoint], None],
) -> RunOutcome:
    """Measure each model's server in turn; a failure is recorded as a row.

    Args:
        setup: images and recorder. The first test image is posted to identify the served model.
        target: starts the servers, or names a running one.
        names: names of the models; None means a running server's default.
        measure: measures one server and adds its rows.

    Raises:
        BenchError: a row could not be written.
    """
    with Survey(setup.recorder) as survey:
        for name in names:
            with (
                survey.attempt(name or target.url or "", stage) as subject,
                target.serving(name) as (url, server),
            ):
                served = ask_what_is_served(url, setup.dataset.test.images[0], name)
                subject.title = subject.model = served.model
                subject.digest = served.digest
                measure(subject, Endpoint(url, server, name, served))
    return survey.outcome


@by_dataset
def load_models(
    setup: Setup, target: Target, names: Sequence[str | None], plan: LoadPlan
) -> RunOutcome:
    """Run load against each model's server, and record it.

    Raises:
        BenchError: a row could not be written.
    """

    def measure(subject: Subject, at: Endpoint) -> None:
        measurement, interrupted = measure_load(
            at.url,
            setup.dataset.test.images,
            plan,
            model=at.model,
            device=at.served.device,
            server=at.process,
            progress=labelled(f"load: {at.served.model}, {plan.users} users", setup.progress),
        )
        subject.add(measurement, reference_to(setup.dataset))
        if interrupted:
            raise KeyboardInterrupt

    return each_served(setup, target, names, "load", measure)


@by_dataset
def verify_models(setup: Setup, target: Target, names: Sequence[str | None]) -> RunOutcome:
    """Compare each model's server with this process on every test image, and record it.

    Raises:
        BenchError: a row could not be written.
    """
    store, dataset = setup.store, setup.dataset
    test = dataset.test

    def measure(subject: Subject, at: Endpoint) -> None:
        name, stored = at.served.model, store.load(at.served.model)
        card = stored.card
        if card.sha256 != at.served.digest:
            message = (
                f"the server's {name} has SHA-256 {at.served.digest}, the model in {store.root} "
                f"{card.sha256}: they are different models"
            )
            raise BenchError(message)
        executor = setup.open_model(stored)
        in_process = predict_classes(
            executor,
            test.images,
            labelled(f"in process: {name}", setup.progress),
            workers=untimed_workers(executor),
        )
        from_server = classes_from_server(
            at.url,
            test.images,
            model=at.model,
            progress=labelled(f"through the server: {name}", setup.progress),
        )
        claimed = card.accuracy if card.dataset.fingerprint == dataset.record.fingerprint else None
        measurement = compare_answers(
            from_server,
            in_process,
            test.labels,
            device=at.served.device,
            card_accuracy=claimed.test.accuracy if claimed else None,
        )
        subject.add(measurement, reference_to(setup.dataset))
        if not measurement.is_verified:
            subject.blame("verify does not hold: `cifar10 report` says where")

    return each_served(setup, target, names, "verify", measure)
