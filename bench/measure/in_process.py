"""Measure each model's cost, accuracy, latency and throughput in process (``bench run``)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.measure.accuracy import compare_with_labels, predict_probabilities, untimed_workers
from bench.measure.facts import has_random_weights, measure_cost, read_training
from bench.measure.latency import Executor, LatencyPlan, LatencySession
from bench.measure.progress import Progress, labelled
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Survey, reference_to
from bench.measure.verdicts import of_test_images
from bench.rows.files import Recorder
from bench.rows.kinds.cost import refused_variant, variant_of
from cifar10.card import ModelCard
from cifar10.dataset import Split
from cifar10.store import ModelStore

QUICK_IMAGES = 1_000
"""Number of test images of a quick run."""


@dataclass(frozen=True)
class _Opened:
    card: ModelCard
    executor: Executor


@by_dataset
def measure_models(
    setup: Setup,
    names: Sequence[str],
    plan: LatencyPlan | None,
    *,
    quick: bool = False,
    session: Callable[..., LatencySession] = LatencySession,
) -> RunOutcome:
    """Measure the named models and record the results.

    Args:
        plan: sizes of the latency and throughput measurement; None: skip it.
        quick: whether to use only :data:`QUICK_IMAGES` images.
        session: makes the latency session; tests give it a clock.

    Raises:
        BenchError: a row could not be written.
    """
    store, progress = setup.store, setup.progress
    reference, test = reference_to(setup.dataset), setup.dataset.test
    if quick:
        test = Split(test.images[:QUICK_IMAGES], test.labels[:QUICK_IMAGES])
    record_refused(store, names, setup.recorder)
    opened: dict[str, _Opened] = {}
    with Survey(setup.recorder) as survey:
        for position, name in enumerate(names):
            progress(f"opening {name}", position, len(names))
            with survey.attempt(name, "open") as subject:
                stored = subject.load(store)
                cost, training = measure_cost(stored), read_training(store, stored.card)
                executor = setup.open_model(stored)
                subject.add(cost)
                subject.add(training)
                if (variant := variant_of(stored.card)) is not None:
                    subject.add(variant)
                opened[name] = _Opened(stored.card, executor)
        for name, model in opened.items():
            if has_random_weights(model.card):
                continue
            with survey.attempt(name, "accuracy") as subject:
                probabilities = predict_probabilities(
                    model.executor,
                    test.images,
                    labelled(f"accuracy: {name}", progress),
                    workers=untimed_workers(model.executor),
                )
                accuracy = compare_with_labels(
                    probabilities,
                    test.labels,
                    provider=model.executor.provider,
                    card=model.card,
                    dataset=reference,
                    whole_test_set=not quick,
                )
                subject.add(accuracy, reference)
                if model.card.calibration is not None:
                    found = of_test_images(
                        model.card, probabilities, test.labels, reference, accuracy.provider
                    )
                    subject.add(found, reference)
        if plan is not None and opened:
            executors = {name: model.executor for name, model in opened.items()}
            images = setup.images(max(len(test.images), *plan.batch_sizes))
            _measure_latency(survey, session(executors, images, plan), opened, progress)
    return survey.outcome


def record_refused(store: ModelStore, sources: Sequence[str], recorder: Recorder) -> None:
    """Record a row for each variant of ``sources`` that was refused during export.

    Raises:
        InvalidCardError: a ``refused.json`` is unreadable.
        BenchError: a row could not be written.
    """
    for refused in store.refused():
        found = refused_variant(refused)
        if found is not None and found.record.source in sources:
            recorder.add(refused.card.name, refused.card.sha256, None, found)


def _measure_latency(
    survey: Survey, running: LatencySession, names: Iterable[str], progress: Progress
) -> None:
    try:
        running.run(progress)
    finally:  # also after Ctrl-C: keep what was measured
        for name in names:
            with survey.attempt(name, "latency") as subject:
                for latency in running.latencies(name):
                    subject.add(latency)
                for throughput in running.throughputs(name):
                    subject.add(throughput)
                if name in running.failures:
                    raise running.failures[name]
