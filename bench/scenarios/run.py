"""``cifar10 bench scenarios``: every model through MLPerf's scenarios, in process and over HTTP.

A row is written as soon as a scenario is done: an interruption loses only the one it hit.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from bench.load.client import HttpClient
from bench.load.locust import encode_png
from bench.measure.in_process import Open
from bench.measure.progress import Progress
from bench.measure.survey import RunOutcome
from bench.rows.files import Recorder
from bench.scenarios.in_process import InProcess
from bench.scenarios.over_http import OverHttp
from bench.scenarios.rules import QUICK_SCENARIO_PLAN, ScenarioPlan
from bench.serving.load import IMAGE_COUNT, Served, classify_route
from bench.serving.process import Server
from bench.serving.target import Target, each_served, reference_to
from cifar10.dataset import Dataset
from cifar10.store import ModelStore

STAGE = "scenario"


def scenario_plan(options: argparse.Namespace) -> ScenarioPlan:
    """What the command line asks for."""
    plan = QUICK_SCENARIO_PLAN if options.quick else ScenarioPlan()
    seconds = options.seconds or plan.seconds
    return dataclasses.replace(plan, seconds=seconds, bound_ms=options.bound_ms)


def merged(outcomes: Sequence[RunOutcome]) -> RunOutcome:
    """Several runs as one: a model is measured when no run failed at it."""
    whole = RunOutcome()
    for outcome in outcomes:
        whole.failed |= outcome.failed
        whole.interrupted |= outcome.interrupted
    done = dict.fromkeys(name for outcome in outcomes for name in outcome.measured)
    whole.measured = [name for name in done if name not in whole.failed]
    return whole


def scenarios_in_process(
    store: ModelStore,
    names: Sequence[str],
    dataset: Dataset,
    recorder: Recorder,
    open_model: Open,
    plan: ScenarioPlan,
    progress: Progress,
) -> RunOutcome:
    """Run the scenarios on each model named, one after the other, and record them.

    Raises:
        BenchError: a row could not be written.
    """
    outcome = RunOutcome()
    images = dataset.test.images[:IMAGE_COUNT]
    try:
        for name in names:
            digest = ""
            try:
                stored = store.load(name)
                digest = stored.card.sha256
                session = InProcess(open_model(stored), images, plan)
                for measurement in session.run(_of(name, "in process", progress)):
                    recorder.add(name, digest, reference_to(dataset), measurement)
            except Exception as error:  # any reason is that model's failure row
                recorder.add_failure(name, digest, STAGE, error)
                outcome.failed[name] = f"failed at {STAGE}: {type(error).__name__}: {error}"
            else:
                outcome.measured.append(name)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def scenarios_over_http(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    plan: ScenarioPlan,
    progress: Progress,
) -> RunOutcome:
    """Run the scenarios on each model's server, one after the other, and record them.

    Raises:
        BenchError: a row could not be written.
    """
    bodies = [encode_png(image) for image in dataset.test.images[:IMAGE_COUNT]]

    def measure(url: str, server: Server | None, served: Served, name: str | None) -> bool:
        client = HttpClient(url, classify_route(name), bodies)
        check = server.check_alive if server is not None else lambda: None
        session = OverHttp(client, served.device, plan, check)
        for measurement in session.run(_of(served.model, "http", progress)):
            recorder.add(served.model, served.digest, reference_to(dataset), measurement)
        return True

    return each_served(target, names, dataset, recorder, STAGE, measure)


def _of(model: str, via: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{model}, {via}: {what}", done, total)
