"""``python -m bench run``: every model's cost, accuracy, latency and throughput, in process.

A model that fails at one thing gets a row that says why, and the others go on. Rows are written
as soon as they are known; an interruption loses only what it hit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measure.accuracy import compare_with_labels, predict_probabilities, untimed_workers
from bench.measure.cost import measure_cost
from bench.measure.latency import Executor, LatencyPlan, LatencySession
from bench.measure.progress import Progress, labelled, silent
from bench.measure.survey import RunOutcome as RunOutcome
from bench.measure.training_history import read_training
from bench.rows.files import DatasetReference, Recorder
from bench.rows.kinds.variant import refused_variant, variant_of
from cifar10.card import ModelCard
from cifar10.dataset import Dataset, Split
from cifar10.store import ModelStore, StoredModel

QUICK_IMAGES = 1_000
"""Test images of a quick run."""

Open = Callable[[StoredModel], Executor]
"""Makes a stored model ready to run: loaded, and checked against its golden answer."""


@dataclass(frozen=True)
class _Opened:
    card: ModelCard
    executor: Executor
    shows_accuracy: bool


def measure_models(
    store: ModelStore,
    names: Sequence[str],
    dataset: Dataset,
    recorder: Recorder,
    *,
    open_model: Open,
    plan: LatencyPlan | None,
    quick: bool = False,
    session: Callable[..., LatencySession] = LatencySession,
    progress: Progress = silent,
) -> RunOutcome:
    """Measure the models named and record everything.

    Args:
        store: where they are.
        names: which ones.
        dataset: its test images are the ones measured on.
        recorder: gets the rows.
        open_model: makes a model ready; what it raises becomes a failure row.
        plan: how much latency is measured; None: none, nor any throughput.
        quick: only :data:`QUICK_IMAGES` images.
        session: makes the latency session: tests give it a clock.
        progress: told how far this is.

    Raises:
        BenchError: a row could not be written.
    """
    outcome = RunOutcome()
    reference = DatasetReference(dataset.record.variant, dataset.record.fingerprint)
    test = dataset.test
    if quick:
        test = Split(test.images[:QUICK_IMAGES], test.labels[:QUICK_IMAGES])

    def fail(name: str, digest: str, stage: str, error: BaseException) -> None:
        recorder.add_failure(name, digest, stage, error)
        outcome.failed[name] = f"failed at {stage}: {type(error).__name__}: {error}"

    record_refused(store, names, recorder)
    opened: dict[str, _Opened] = {}
    try:
        for position, name in enumerate(names):
            progress(f"opening {name}", position, len(names))
            digest = ""
            try:
                stored = store.load(name)
                digest = stored.card.sha256
                cost = measure_cost(stored)
                executor = open_model(stored)
            except Exception as error:  # any reason is that model's failure row
                fail(name, digest, "open", error)
                continue
            recorder.add(name, digest, None, cost)
            recorder.add(name, digest, None, read_training(store, stored.card))
            variant = variant_of(stored.card)
            if variant is not None:
                recorder.add(name, digest, None, variant)
            opened[name] = _Opened(stored.card, executor, not cost.random_weights)
        for name, model in opened.items():
            if not model.shows_accuracy:
                continue
            try:
                probabilities = predict_probabilities(
                    model.executor,
                    test.images,
                    labelled(f"accuracy: {name}", progress),
                    workers=untimed_workers(model.executor),
                )
            except Exception as error:  # as above
                fail(name, model.card.sha256, "accuracy", error)
                continue
            accuracy = compare_with_labels(
                probabilities,
                test.labels,
                provider=model.executor.provider,
                card=model.card,
                dataset=reference,
                whole_test_set=not quick,
            )
            recorder.add(name, model.card.sha256, reference, accuracy)
        if plan is not None:
            _measure_latency(opened, test, recorder, session, plan, progress, fail)
    except KeyboardInterrupt:
        outcome.interrupted = True
    outcome.measured = [name for name in opened if name not in outcome.failed]
    return outcome


def record_refused(store: ModelStore, sources: Sequence[str], recorder: Recorder) -> None:
    """The variants of ``sources`` that were refused when they were made: rows that say why.

    Raises:
        InvalidCardError: a ``refused.json`` that cannot be read.
        BenchError: a row could not be written.
    """
    for refused in store.refused():
        found = refused_variant(refused)
        if found is not None and found.record.source in sources:
            recorder.add(refused.card.name, refused.card.sha256, None, found)


def _measure_latency(
    opened: dict[str, _Opened],
    test: Split,
    recorder: Recorder,
    session: Callable[..., LatencySession],
    plan: LatencyPlan,
    progress: Progress,
    fail: Callable[[str, str, str, BaseException], None],
) -> None:
    executors = {name: model.executor for name, model in opened.items()}
    if not executors:
        return
    running = session(executors, test.images, plan)
    try:
        running.run(progress)
    finally:  # also after Ctrl-C: what was measured is kept
        for name, model in opened.items():
            for latency in running.latencies(name):
                recorder.add(name, model.card.sha256, None, latency)
            for throughput in running.throughputs(name):
                recorder.add(name, model.card.sha256, None, throughput)
        for name, error in running.failures.items():
            fail(name, opened[name].card.sha256, "latency", error)
