"""Run MLPerf's scenarios on every model, in process and over HTTP (``bench scenarios``).

A row is written as soon as a scenario ends, so an interruption loses only the current scenario.
"""

from collections.abc import Sequence
from typing import Final

from bench.load.bodies import encode_png
from bench.load.client import HttpClient
from bench.load.drive import Driver
from bench.measure.progress import Progress
from bench.measure.setup import Setup, by_dataset
from bench.measure.survey import RunOutcome, Subject, Survey, reference_to
from bench.scenarios.in_process import InProcess
from bench.scenarios.over_http import OverHttp
from bench.scenarios.rules import ScenarioPlan
from bench.serving.load import IMAGE_COUNT, classify_route
from bench.serving.target import Endpoint, Target, each_served

STAGE: Final = "scenario"


@by_dataset
def scenarios_in_process(setup: Setup, names: Sequence[str], plan: ScenarioPlan) -> RunOutcome:
    """Run the scenarios on each named model in turn and record them.

    Raises:
        BenchError: a row could not be written.
    """
    images = setup.images(IMAGE_COUNT)
    with Survey(setup.recorder) as survey:
        for name in names:
            with survey.attempt(name, STAGE) as subject:
                session = InProcess(setup.open_model(subject.load(setup.store)), images, plan)
                for measurement in session.run(_prefixed(f"{name}, in process", setup.progress)):
                    subject.add(measurement, reference_to(setup.dataset))
    return survey.outcome


@by_dataset
def scenarios_over_http(
    setup: Setup, target: Target, names: Sequence[str | None], plan: ScenarioPlan
) -> RunOutcome:
    """Run the scenarios on each named model's server in turn and record them.

    Raises:
        BenchError: a row could not be written.
    """
    bodies = [encode_png(image) for image in setup.images(IMAGE_COUNT)]

    def measure(subject: Subject, at: Endpoint) -> None:
        driver = Driver(HttpClient(at.url, classify_route(at.model), bodies), at.check)
        session = OverHttp(driver, at.served.device, plan)
        for measurement in session.run(_prefixed(f"{at.served.model}, http", setup.progress)):
            subject.add(measurement, reference_to(setup.dataset))

    return each_served(setup, target, names, STAGE, measure)


def _prefixed(prefix: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{prefix}: {what}", done, total)
