"""The stages of ``python -m bench all``, in order: what each measures and which rows it leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.agreement import AgreementPlan
from bench.agreement_runs import agree_on_models
from bench.corruptions import CORRUPTIONS
from bench.everything import Stage
from bench.generator import LoadPlan
from bench.latency import LatencyPlan
from bench.measurements import LatencyMeasurement, LoadMeasurement, RobustnessMeasurement
from bench.over_http import Target, load_models, verify_models
from bench.progress import Progress
from bench.resources import measure_resources
from bench.results import Recorder, Row
from bench.robustness import DEFAULT_IMAGES, measure_robustness
from bench.run import Open, measure_models
from bench.scenario_measurements import ScenarioMeasurement
from bench.scenario_runs import scenarios_in_process, scenarios_over_http
from bench.scenarios import SCENARIOS, ScenarioPlan
from cifar10.dataset import Dataset
from cifar10.store import ModelStore

_LATE_START_SECONDS = 2.0
"""Locust's own start is part of its time; a load run that lacks more than this was cut short."""
_QUICK_ROBUSTNESS_IMAGES = 100


@dataclass(frozen=True)
class Everything:
    """What all stages share."""

    target: Target
    dataset: Dataset
    recorder: Recorder
    open_model: Open
    progress: Progress
    quick: bool
    latency: LatencyPlan
    scenarios: ScenarioPlan
    load: LoadPlan
    agreement: AgreementPlan


def stages_of(session: Everything) -> list[Stage]:
    """In process first: no server is running then."""
    store = ModelStore(session.target.models)
    shared = (session.dataset, session.recorder)
    target, progress = session.target, session.progress
    return [
        Stage(
            "run",
            (_is("cost"), _is_whole_latency(session.latency)),
            lambda names: measure_models(
                store,
                names,
                *shared,
                open_model=session.open_model,
                plan=session.latency,
                quick=session.quick,
                progress=progress,
            ),
        ),
        Stage(
            "scenarios in process",
            _are_scenarios("in process"),
            lambda names: scenarios_in_process(
                store, names, *shared, session.open_model, session.scenarios, progress
            ),
        ),
        Stage(
            "robustness",
            tuple(_is_robustness(corruption.name) for corruption in CORRUPTIONS),
            lambda names: measure_robustness(
                store,
                names,
                *shared,
                open_model=session.open_model,
                images=_QUICK_ROBUSTNESS_IMAGES if session.quick else DEFAULT_IMAGES,
                progress=progress,
            ),
        ),
        Stage(
            "resources",
            (_is("resources"),),
            lambda names: measure_resources(
                store,
                names,
                session.recorder,
                open_model=session.open_model,
                device=target.device,
                progress=progress,
            ),
        ),
        Stage(
            "scenarios over http",
            _are_scenarios("http"),
            lambda names: scenarios_over_http(target, names, *shared, session.scenarios, progress),
        ),
        Stage(
            "load",
            (_is_whole_load(session.load),),
            lambda names: load_models(target, names, *shared, session.load, progress),
        ),
        Stage(
            "verify",
            (_is("verify"),),
            lambda names: verify_models(target, names, *shared, session.open_model, progress),
        ),
        Stage(
            "agree",
            (_is("agreement"),),
            lambda names: agree_on_models(target, names, *shared, session.agreement, progress),
        ),
    ]


def _is(kind: str) -> Callable[[Row], bool]:
    return lambda row: row.kind == kind


def _is_robustness(corruption: str) -> Callable[[Row], bool]:
    def check(row: Row) -> bool:
        found = row.measurement
        return isinstance(found, RobustnessMeasurement) and found.corruption == corruption

    return check


def _is_whole_latency(plan: LatencyPlan) -> Callable[[Row], bool]:
    """The largest batch comes last in every round."""

    def check(row: Row) -> bool:
        found = row.measurement
        return (
            isinstance(found, LatencyMeasurement)
            and found.batch_size == max(plan.batch_sizes)
            and found.rounds >= plan.rounds
        )

    return check


def _is_whole_load(plan: LoadPlan) -> Callable[[Row], bool]:
    def check(row: Row) -> bool:
        found = row.measurement
        return (
            isinstance(found, LoadMeasurement)
            and found.seconds >= plan.seconds - _LATE_START_SECONDS
        )

    return check


def _are_scenarios(via: str) -> tuple[Callable[[Row], bool], ...]:
    def check(scenario: str) -> Callable[[Row], bool]:
        def is_it(row: Row) -> bool:
            found = row.measurement
            return (
                isinstance(found, ScenarioMeasurement)
                and (found.scenario, found.via) == (scenario, via)
            )  # fmt: skip

        return is_it

    return tuple(check(scenario) for scenario in SCENARIOS)
