"""The stages of ``cifar10 bench all``, in order: what each measures and which rows it leaves.

In process first: no server is running then. What the first stages find decides, by
:mod:`bench.session.plan`, which models the later ones are for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.load.locust import LoadPlan
from bench.measure.corruptions import CORRUPTIONS
from bench.measure.damage import DEFAULT_IMAGES, measure_robustness, measure_sendings
from bench.measure.in_process import Open, measure_models
from bench.measure.latency import LatencyPlan
from bench.measure.progress import Progress
from bench.measure.resources import measure_resources
from bench.measure.sendings import SENDINGS
from bench.measure.survey import RunOutcome
from bench.rows.files import Recorder
from bench.rows.kinds.accuracy import RobustnessMeasurement, SendingMeasurement
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.session import PlanMeasurement
from bench.rows.kinds.speed import SCENARIOS, LatencyMeasurement, ScenarioMeasurement
from bench.rows.row import Row
from bench.rows.selection import select
from bench.scenarios.run import scenarios_in_process, scenarios_over_http
from bench.serving.target import Target, load_models, verify_models
from bench.session.plan import Lengths, Role, decide, first_roles, latency_plan_for
from bench.session.resume import Stage
from cifar10.card import ModelCard
from cifar10.dataset import Dataset
from cifar10.store import ModelStore

_LATE_START_SECONDS = 2.0
"""Locust's own start is part of its time; a load run that lacks more than this was cut short."""
_QUICK_ROBUSTNESS_IMAGES = 100
_GROUP_BYTES = 300_000_000
"""Models without an accuracy are timed in groups whose files are not larger than this together, so
that dozens of large ones need not be in memory at once."""

IsDone = Callable[[Sequence[Row]], bool]


@dataclass(frozen=True)
class Everything:
    """What all stages share."""

    target: Target
    dataset: Dataset
    recorder: Recorder
    open_model: Open
    progress: Progress
    quick: bool
    rows: Callable[[], Sequence[Row]]
    """Those of this session so far."""
    named: Sequence[str]
    """Models to be measured in full, whatever they are."""
    quick_latency: LatencyPlan | None
    """Instead of the plan that the number of models gives."""
    lengths: Callable[[int], Lengths]
    """How long the runs over few models take, by their number."""


@dataclass(frozen=True)
class _Parts:
    """Which models a stage is for."""

    session: Everything
    cards: dict[str, ModelCard]

    def first(self, role: Role) -> list[str]:
        """As far as the cards tell."""
        roles = first_roles(list(self.cards.values()), self.session.named)
        return [name for name, found in roles.items() if found == role]

    def in_process(self) -> list[str]:
        """All that have an accuracy of their own."""
        return self.first("in process")

    def full(self) -> list[str]:
        """As the session's rows have it."""
        return [name for name in self.cards if self._role(name) == "full"]

    def _role(self, name: str) -> str | None:
        found = [
            row.measurement.role
            for row in self.session.rows()
            if row.model == name and isinstance(row.measurement, PlanMeasurement)
        ]
        return found[-1] if found else None

    def record(self) -> RunOutcome:
        """Decide what each model gets."""
        cards = list(self.cards.values())
        found = decide(cards, select(self.session.rows()), self.session.named)
        for name, part in found.items():
            self.session.recorder.add(name, self.cards[name].sha256, None, part)
        return RunOutcome(list(found))


def stages_of(session: Everything, cards: Sequence[ModelCard]) -> list[Stage]:
    """The stages for the models that have these cards."""
    parts = _Parts(session, {card.name: card for card in cards})
    return [*_on_each(session, parts), *_on_few(session, parts)]


def _on_each(session: Everything, parts: _Parts) -> list[Stage]:
    """What every model gets, and what decides which get more."""
    store = ModelStore(session.target.models)

    def run(names: Sequence[str], plan: LatencyPlan | None) -> RunOutcome:
        return measure_models(
            store,
            names,
            session.dataset,
            session.recorder,
            open_model=session.open_model,
            plan=plan,
            quick=session.quick,
            progress=session.progress,
        )

    def plan_for(role: Role) -> LatencyPlan:
        short = role == "cost only"
        return session.quick_latency or latency_plan_for(len(parts.first(role)), short=short)

    def cost_only(names: Sequence[str]) -> RunOutcome:
        whole = RunOutcome()
        for group in groups_of(names, {name: parts.cards[name].size_bytes for name in names}):
            found = run(group, plan_for("cost only"))
            whole.measured += found.measured
            whole.failed |= found.failed
            whole.interrupted = found.interrupted
            if found.interrupted:
                break
        return whole

    return [
        Stage(
            "accuracy and speed",
            _are_whole_latencies(plan_for("in process")),
            lambda names: run(names, plan_for("in process")),
            parts.in_process,
        ),
        Stage(
            "other seeds",
            _one_of_each(_is("cost"), _is("accuracy")),
            lambda names: run(names, None),
            lambda: parts.first("other seed"),
        ),
        Stage(
            "cost only",
            _are_whole_latencies(plan_for("cost only")),
            cost_only,
            lambda: parts.first("cost only"),
        ),
        Stage("who gets more", _one_of_each(_is("plan")), lambda _: parts.record()),
        Stage(
            "resources",
            _one_of_each(_is("resources")),
            lambda names: measure_resources(
                store,
                names,
                session.recorder,
                open_model=session.open_model,
                device=session.target.device,
                progress=session.progress,
            ),
            parts.in_process,
        ),
    ]


def _on_few(session: Everything, parts: _Parts) -> list[Stage]:
    """What only those worth considering get."""
    store = ModelStore(session.target.models)
    shared = (session.dataset, session.recorder)
    target, progress = session.target, session.progress

    def lengths() -> Lengths:
        return session.lengths(len(parts.full()))

    return [
        Stage(
            "scenarios in process",
            _are_scenarios("in process"),
            lambda names: scenarios_in_process(
                store, names, *shared, session.open_model, lengths().scenarios, progress
            ),
            parts.full,
        ),
        Stage(
            "robustness",
            _one_of_each(*(_is_robustness(corruption.name) for corruption in CORRUPTIONS)),
            lambda names: measure_robustness(
                store,
                names,
                *shared,
                open_model=session.open_model,
                images=_QUICK_ROBUSTNESS_IMAGES if session.quick else DEFAULT_IMAGES,
                progress=progress,
            ),
            lambda: [name for name in parts.full() if name not in parts.first("cost only")],
        ),
        Stage(
            "images as users send them",
            _one_of_each(*(_is_sending(sending.name) for sending in SENDINGS)),
            lambda names: measure_sendings(
                store,
                names,
                *shared,
                open_model=session.open_model,
                images=_QUICK_ROBUSTNESS_IMAGES if session.quick else DEFAULT_IMAGES,
                progress=progress,
            ),
            lambda: [name for name in parts.full() if name not in parts.first("cost only")],
        ),
        Stage(
            "scenarios over http",
            _are_scenarios("http"),
            lambda names: scenarios_over_http(
                target, names, *shared, lengths().scenarios, progress
            ),
            parts.full,
        ),
        Stage(
            "load",
            lambda rows: any(_is_whole_load(row, lengths().load) for row in rows),
            lambda names: load_models(target, names, *shared, lengths().load, progress),
            parts.full,
        ),
        Stage(
            "verify",
            _one_of_each(_is("verify")),
            lambda names: verify_models(target, names, *shared, session.open_model, progress),
            parts.full,
        ),
    ]


def groups_of(names: Iterable[str], sizes: dict[str, int]) -> list[list[str]]:
    """The names, in order, in groups of at most :data:`_GROUP_BYTES` (or of one)."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        if not groups or sizes[name] > room:
            groups.append([])
            room = _GROUP_BYTES
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def _one_of_each(*wanted: Callable[[Row], bool]) -> IsDone:
    """Whether there is a row for each of these."""
    return lambda rows: all(any(is_it(row) for row in rows) for is_it in wanted)


def _is(kind: str) -> Callable[[Row], bool]:
    return lambda row: row.kind == kind


def _is_robustness(corruption: str) -> Callable[[Row], bool]:
    def check(row: Row) -> bool:
        found = row.measurement
        return isinstance(found, RobustnessMeasurement) and found.corruption == corruption

    return check


def _is_sending(way: str) -> Callable[[Row], bool]:
    def check(row: Row) -> bool:
        found = row.measurement
        return isinstance(found, SendingMeasurement) and found.way == way

    return check


def _are_whole_latencies(plan: LatencyPlan) -> IsDone:
    """Whether there are some, and each has all the plan's rounds: batches that are too slow to be
    measured have no row."""

    def check(rows: Sequence[Row]) -> bool:
        found = [row.measurement for row in rows if isinstance(row.measurement, LatencyMeasurement)]
        return bool(found) and all(one.rounds >= plan.rounds for one in found)

    return check


def _is_whole_load(row: Row, plan: LoadPlan) -> bool:
    found = row.measurement
    return (
        isinstance(found, LoadMeasurement) and found.seconds >= plan.seconds - _LATE_START_SECONDS
    )


def _are_scenarios(via: str) -> IsDone:
    def check(scenario: str) -> Callable[[Row], bool]:
        def is_it(row: Row) -> bool:
            found = row.measurement
            return (
                isinstance(found, ScenarioMeasurement)
                and (found.scenario, found.via) == (scenario, via)
            )  # fmt: skip

        return is_it

    return _one_of_each(*(check(scenario) for scenario in SCENARIOS))
