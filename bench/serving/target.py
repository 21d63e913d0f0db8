"""``cifar10 bench load`` and ``verify``: one model after the other, each on a server of its own.

Or on a service that is already running, when its URL is given.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.locust import LoadPlan
from bench.measure.accuracy import predict_classes, untimed_workers
from bench.measure.in_process import Open
from bench.measure.progress import Progress, labelled
from bench.measure.survey import RunOutcome
from bench.rows.files import DatasetReference, Recorder
from bench.serving.load import Served, ask_what_is_served, measure_load
from bench.serving.process import SERVE, Server
from bench.serving.verify import classes_from_server, compare_answers, is_verified
from cifar10.dataset import Dataset
from cifar10.errors import BenchError, Cifar10Error
from cifar10.store import ModelStore


@dataclass(frozen=True)
class Target:
    """Which server is measured."""

    models: Path
    """The model store of the servers started here."""
    url: str | None = None
    """Of a running service; None: start one for each model."""
    device: str = "auto"
    command: Sequence[str] = SERVE
    """What starts one."""

    @contextlib.contextmanager
    def serving(self, model: str | None) -> Iterator[tuple[str, Server | None]]:
        """The URL of a server that answers for ``model``, and its process when it is ours."""
        if self.url is not None:
            yield self.url.rstrip("/"), None
            return
        load = [model] if model is not None else []
        with Server(self.models, load=load, device=self.device, command=self.command) as server:
            yield server.url, server


def load_models(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    plan: LoadPlan,
    progress: Progress,
) -> RunOutcome:
    """Put each model under load, and record it; None asks a running server for its default.

    Raises:
        BenchError: a row could not be written.
    """

    def measure(url: str, server: Server | None, served: Served, name: str | None) -> bool:
        measurement, interrupted = measure_load(
            url,
            dataset.test.images,
            plan,
            model=name,
            device=served.device,
            server=server,
            progress=labelled(f"load: {served.model}, {plan.users} users", progress),
        )
        recorder.add(served.model, served.digest, reference_to(dataset), measurement)
        if interrupted:
            raise KeyboardInterrupt
        return True

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

    def measure(url: str, server: Server | None, served: Served, name: str | None) -> bool:
        stored = store.load(served.model)
        if stored.card.sha256 != served.digest:
            message = (
                f"the server's {served.model} has SHA-256 {served.digest}, the one in "
                f"{store.root} {stored.card.sha256}: they are different models"
            )
            raise BenchError(message)
        executor = open_model(stored)
        in_process = predict_classes(
            executor,
            test.images,
            labelled(f"in process: {served.model}", progress),
            workers=untimed_workers(executor),
        )
        from_server = classes_from_server(
            url,
            test.images,
            model=name,
            progress=labelled(f"through the server: {served.model}", progress),
        )
        card = stored.card
        claimed = card.accuracy if card.dataset.fingerprint == dataset.record.fingerprint else None
        measurement = compare_answers(
            from_server,
            in_process,
            test.labels,
            device=served.device,
            card_accuracy=claimed.test.accuracy if claimed else None,
        )
        recorder.add(served.model, served.digest, reference_to(dataset), measurement)
        return is_verified(measurement)

    return each_served(target, names, dataset, recorder, "verify", measure)


def each_served(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    stage: str,
    measure: Callable[[str, Server | None, Served, str | None], bool],
) -> RunOutcome:
    """Let ``measure`` do its work on each model's server; what fails is a row.

    ``measure`` is given the URL, the process when it is ours, what answers and the name asked for,
    and returns whether what it checked holds.

    Raises:
        BenchError: a row could not be written.
    """
    outcome = RunOutcome()
    try:
        for name in names:
            shown, digest = name or target.url or "", ""
            try:
                with target.serving(name) as (url, server):
                    served = ask_what_is_served(url, dataset.test.images[0], name)
                    shown, digest = served.model, served.digest
                    holds = measure(url, server, served, name)
            except Cifar10Error as error:
                recorder.add_failure(shown, digest, stage, error)
                outcome.failed[shown] = f"failed at {stage}: {error}"
            else:
                outcome.measured.append(shown)
                if not holds:
                    outcome.failed[shown] = f"{stage} does not hold: `cifar10 report` says where"
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def reference_to(dataset: Dataset) -> DatasetReference:
    """Which images a row is about."""
    return DatasetReference(dataset.record.variant, dataset.record.fingerprint)
