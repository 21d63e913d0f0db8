"""Stages of ``cifar10 bench all``, in order, with the rows that each writes.

Measurements in process come first, while no server is running. Their results decide through
:mod:`bench.session.plan` which models the later stages measure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.load.locust import LoadPlan
from bench.measure.corruptions import CORRUPTIONS
from bench.measure.damage import DEFAULT_IMAGES, measure_robustness, measure_sendings
from bench.measure.in_process import measure_models
from bench.measure.latency import LatencyPlan
from bench.measure.resources import measure_resources
from bench.measure.sendings import SENDINGS
from bench.measure.setup import Setup
from bench.measure.survey import RunOutcome, merged
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.session import PlanMeasurement
from bench.rows.kinds.speed import SCENARIOS, LatencyMeasurement
from bench.rows.row import Row
from bench.rows.selection import select
from bench.scenarios.run import scenarios_in_process, scenarios_over_http
from bench.serving.target import Target, load_models, verify_models
from bench.session.plan import Lengths, Role, decide, first_roles, latency_plan_for
from bench.session.resume import Stage
from cifar10.card import ModelCard

_LATE_START_SECONDS: Final = 2.0
"""Allowance for Locust's start-up, which counts as run time.

A load run that falls short by more was interrupted.
"""
_QUICK_ROBUSTNESS_IMAGES: Final = 100
_GROUP_BYTES: Final = 300_000_000
"""Total file size of a group of models without an accuracy that are timed together.

Grouping keeps dozens of large models from being in memory at once.
"""

IsIt = Callable[[Row], bool]
IsDone = Callable[[Sequence[Row]], bool]


@dataclass(frozen=True)
class Everything:
    """Settings of a session and resources shared by all its stages."""

    setup: Setup
    target: Target
    quick: bool
    rows: Callable[[], Sequence[Row]]
    """Reads this session's rows so far."""
    named: Sequence[str]
    """Models to measure in full regardless of the plan."""
    quick_latency: LatencyPlan | None
    """Latency plan for ``--quick``, instead of one that depends on the number of models."""
    lengths: Callable[[int], Lengths]
    """Returns the durations for a number of models in full."""


def stages_of(session: Everything, cards: Sequence[ModelCard]) -> list[Stage]:
    """Return the stages for the models with these cards."""
    return _Stages(session, cards).all()


class _Stages:
    def __init__(self, session: Everything, cards: Sequence[ModelCard]) -> None:
        self._session = session
        self._cards = {card.name: card for card in cards}
        self._first = first_roles(cards, session.named)
        self._setup = session.setup

    def all(self) -> list[Stage]:
        in_process, cost_only = self._plan_for("in process"), self._plan_for("cost only")
        return [
            # Measurements for every model, then the choice of candidates.
            Stage(
                "accuracy and speed",
                _are_whole_latencies(in_process),
                lambda names: self._in_process(names, in_process),
                lambda: self._with_role("in process"),
            ),
            Stage(
                "other seeds",
                _one_of_each(_row("cost"), _row("accuracy")),
                lambda names: self._in_process(names, None),
                lambda: self._with_role("other seed"),
            ),
            Stage(
                "cost only",
                _are_whole_latencies(cost_only),
                self._cost_only,
                lambda: self._with_role("cost only"),
            ),
            Stage("who gets more", _one_of_each(_row("plan")), lambda _: self._record_plan()),
            Stage(
                "resources",
                _one_of_each(_row("resources")),
                self._resources,
                lambda: self._with_role("in process"),
            ),
            # Measurements for candidates only.
            Stage(
                "scenarios in process",
                _are_scenarios("in process"),
                self._scenarios_in_process,
                self._full,
            ),
            Stage(
                "robustness",
                _one_of_each(*(_row("robustness", corruption=one.name) for one in CORRUPTIONS)),
                lambda names: self._damage(measure_robustness, names),
                self._full_and_trained,
            ),
            Stage(
                "images as users send them",
                _one_of_each(*(_row("sending", way=one.name) for one in SENDINGS)),
                lambda names: self._damage(measure_sendings, names),
                self._full_and_trained,
            ),
            Stage(
                "scenarios over http", _are_scenarios("http"), self._scenarios_over_http, self._full
            ),
            Stage(
                "load",
                lambda rows: any(_is_whole_load(row, self._lengths().load) for row in rows),
                self._load,
                self._full,
            ),
            Stage("verify", _one_of_each(_row("verify")), self._verify, self._full),
        ]

    def _with_role(self, role: Role) -> list[str]:
        """Return the models whose cards give them this role."""
        return [name for name, found in self._first.items() if found == role]

    def _full(self) -> list[str]:
        """Return the models to measure in full, according to the session's rows."""
        roles = {
            row.model: row.measurement.role
            for row in self._session.rows()
            if isinstance(row.measurement, PlanMeasurement)
        }
        return [name for name in self._cards if roles.get(name) == "full"]

    def _full_and_trained(self) -> list[str]:
        return [name for name in self._full() if self._first[name] != "cost only"]

    def _lengths(self) -> Lengths:
        return self._session.lengths(len(self._full()))

    def _plan_for(self, role: Role) -> LatencyPlan:
        models = len(self._with_role(role))
        return self._session.quick_latency or latency_plan_for(models, short=role == "cost only")

    def _in_process(self, names: Sequence[str], plan: LatencyPlan | None) -> RunOutcome:
        return measure_models(self._setup, names, plan, quick=self._session.quick)

    def _cost_only(self, names: Sequence[str]) -> RunOutcome:
        outcomes: list[RunOutcome] = []
        for group in groups_of(names, {name: self._cards[name].size_bytes for name in names}):
            outcomes.append(self._in_process(group, self._plan_for("cost only")))
            if outcomes[-1].interrupted:
                break
        return merged(outcomes)

    def _record_plan(self) -> RunOutcome:
        """Decide and record each model's role."""
        session = self._session
        found = decide(list(self._cards.values()), select(session.rows()), session.named)
        for name, part in found.items():
            self._setup.recorder.add(name, self._cards[name].sha256, None, part)
        return RunOutcome(list(found))

    def _resources(self, names: Sequence[str]) -> RunOutcome:
        setup = self._setup
        return measure_resources(
            setup.store,
            names,
            setup.recorder,
            open_model=setup.open_model,
            device=self._session.target.device,
            progress=setup.progress,
        )

    def _damage(self, measure: Callable[..., RunOutcome], names: Sequence[str]) -> RunOutcome:
        images = _QUICK_ROBUSTNESS_IMAGES if self._session.quick else DEFAULT_IMAGES
        return measure(self._setup, names, images=images)

    def _scenarios_in_process(self, names: Sequence[str]) -> RunOutcome:
        return scenarios_in_process(self._setup, names, self._lengths().scenarios)

    def _scenarios_over_http(self, names: Sequence[str]) -> RunOutcome:
        plan = self._lengths().scenarios
        return scenarios_over_http(self._setup, self._session.target, names, plan)

    def _load(self, names: Sequence[str]) -> RunOutcome:
        return load_models(self._setup, self._session.target, names, self._lengths().load)

    def _verify(self, names: Sequence[str]) -> RunOutcome:
        return verify_models(self._setup, self._session.target, names)


def groups_of(names: Iterable[str], sizes: dict[str, int]) -> list[list[str]]:
    """Split the names, in order, into groups of at most :data:`_GROUP_BYTES`; a larger model is
    alone."""
    groups: list[list[str]] = []
    room = 0
    for name in names:
        if not groups or sizes[name] > room:
            groups.append([])
            room = _GROUP_BYTES
        groups[-1].append(name)
        room -= sizes[name]
    return groups


def _one_of_each(*wanted: IsIt) -> IsDone:
    """Return a check that every matcher finds a row."""
    return lambda rows: all(any(is_it(row) for row in rows) for is_it in wanted)


def _row(kind: str, **fields: Any) -> IsIt:
    """Return a matcher for rows of this kind with these measurement values."""
    return lambda row: (
        row.kind == kind
        and all(getattr(row.measurement, name) == value for name, value in fields.items())
    )


def _are_scenarios(via: str) -> IsDone:
    return _one_of_each(*(_row("scenario", scenario=name, via=via) for name in SCENARIOS))


def _are_whole_latencies(plan: LatencyPlan) -> IsDone:
    """Return whether there are latencies and each has all the plan's rounds.

    Batch sizes too slow to measure have no row.
    """

    def check(rows: Sequence[Row]) -> bool:
        found = [row.measurement for row in rows if isinstance(row.measurement, LatencyMeasurement)]
        return bool(found) and all(one.rounds >= plan.rounds for one in found)

    return check


def _is_whole_load(row: Row, plan: LoadPlan) -> bool:
    found, least = row.measurement, plan.seconds - _LATE_START_SECONDS
    return isinstance(found, LoadMeasurement) and found.seconds >= least
