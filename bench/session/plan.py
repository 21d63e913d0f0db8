"""Each model's role in ``cifar10 bench all``, chosen so that thirty models take half an hour.

A full measurement takes minutes a model, and a model that another beats on every figure is not
worth shipping. So every model gets accuracy and cost, and only the candidates get the rest.
:data:`RULE` states this in the report; each model's role is recorded in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from bench.load.locust import LoadPlan
from bench.measure.facts import has_random_weights
from bench.measure.latency import LatencyPlan
from bench.rows.kinds.session import BASELINE, PlanMeasurement
from bench.rows.selection import ModelResult, TradeOff, fronts
from bench.scenarios.rules import ScenarioPlan
from cifar10.card import ModelCard
from cifar10.released import auto_rule, default_model

Role = Literal["full", "in process", "other seed", "cost only"]
"""Role of a model in the plan.

``full``: every measurement. ``in process``: cost, accuracy, latency, throughput, memory. ``other
seed``: cost and accuracy. ``cost only``: cost, latency and throughput.
"""

MOST_FULL: Final = 5
"""Maximum number of models in full, besides the named ones."""

IN_PROCESS_ONLY: Final = (
    "scenarios", "robustness", "HTTP load", "verification over HTTP",
)  # fmt: skip

LEFT_OUT: Final[dict[Role, tuple[str, ...]]] = {
    "full": (),
    "in process": IN_PROCESS_ONLY,
    "other seed": ("latency", "throughput", "memory", *IN_PROCESS_ONLY),
    "cost only": ("accuracy", "memory", *IN_PROCESS_ONLY),
}
"""Measurements that each role leaves out."""

RULE: Final = (
    "Every model: cost, accuracy, latency and throughput. Random weights have no accuracy and a "
    "shorter plan. Of several seeds of a recipe the lowest stands for all in everything but "
    "accuracy: their graphs are the same. The rest (scenarios, robustness, HTTP load, "
    f"verification) is for at most {MOST_FULL} models: `{BASELINE}` as the baseline, those that "
    "answer by default, then those on "
    "a Pareto front of accuracy against latency, size or multiply-accumulates, those on most "
    "fronts first, the more accurate of equals first; and for those named with `--full`. Where "
    f"there are no more than {MOST_FULL} candidates, all get everything. A batch size whose one "
    "call takes longer than {slowest_ms:.0f} ms is not measured."
)
"""The plan in words, for the report."""

SLOWEST_CALL_NS: Final = 300_000_000
_LATENCY_SECONDS: Final = 180
"""Time in seconds for all models with an accuracy together; as much again for those without one."""
_SHORTEST_BLOCK_NS: Final = 40_000_000
_SHORT_ROUNDS: Final = 5
_FEW: Final = 2
"""Maximum number of models in full for which each gets the long durations."""


def rule() -> str:
    """Return :data:`RULE` with its figures filled in."""
    return RULE.format(slowest_ms=SLOWEST_CALL_NS / 1e6)


@dataclass(frozen=True)
class Lengths:
    """Durations of the measurements that only a few models get."""

    scenarios: ScenarioPlan
    load: LoadPlan


def lengths_for(models: int) -> Lengths:
    """Return durations for this number of models in full; every row states its own seconds."""
    if models <= _FEW:
        return Lengths(ScenarioPlan(), LoadPlan())
    return Lengths(ScenarioPlan(seconds=3.0, try_seconds=2.0), LoadPlan(seconds=10))


def latency_plan_for(models: int, *, short: bool = False) -> LatencyPlan:
    """Return the latency plan for ``models`` that share the time.

    More models mean shorter blocks. ``short`` means fewer rounds, for models with random weights.
    """
    plan = LatencyPlan(threads=1, call_ns_most=SLOWEST_CALL_NS)
    if short:
        plan = replace(plan, rounds=_SHORT_ROUNDS)
    blocks = max(1, models) * len(plan.batch_sizes) * (plan.rounds + 1)
    block_ns = min(plan.block_ns, _LATENCY_SECONDS * 10**9 // blocks)
    return replace(plan, block_ns=max(_SHORTEST_BLOCK_NS, block_ns))


def other_seeds(cards: Sequence[ModelCard]) -> dict[str, str]:
    """Map a model to the one that represents it: same recipe and precision, lowest seed."""
    lowest: dict[tuple[str, str], ModelCard] = {}
    for card in sorted(cards, key=lambda card: (card.seed, card.name != card.recipe, card.name)):
        lowest.setdefault((card.recipe, card.precision), card)
    standing = {card.name: lowest[card.recipe, card.precision] for card in cards}
    return {
        card.name: standing[card.name].name
        for card in cards
        if card.seed != standing[card.name].seed
    }


def first_roles(cards: Sequence[ModelCard], named: Sequence[str] = ()) -> dict[str, Role]:
    """Return each model's role as far as the cards determine it.

    Models that may be promoted to ``full`` get ``in process``.
    """
    others = other_seeds(cards)
    roles: dict[str, Role] = {}
    for card in cards:
        if has_random_weights(card):
            roles[card.name] = "cost only"
        elif card.name in others and card.name not in named:
            roles[card.name] = "other seed"
        else:
            roles[card.name] = "in process"
    return roles


def decide(
    cards: Sequence[ModelCard], results: Sequence[ModelResult], named: Sequence[str] = ()
) -> dict[str, PlanMeasurement]:
    """Decide each model's role once accuracy and latency are known."""
    roles = first_roles(cards, named)
    others = other_seeds(cards)
    full = _full(cards, results, roles, named)
    on = _on_fronts(_candidates(results, roles))
    return {
        card.name: _part("full", full[card.name])
        if card.name in full
        else _part(roles[card.name], _why_not(card, others, on))
        for card in cards
    }


def _full(
    cards: Sequence[ModelCard],
    results: Sequence[ModelResult],
    roles: dict[str, Role],
    named: Sequence[str],
) -> dict[str, str]:
    """Map each model to measure in full to the reason."""
    full = dict.fromkeys(named, "named with --full")
    candidates = _candidates(results, roles)
    names = list(dict.fromkeys(result.model for result in candidates))
    if len(names) <= MOST_FULL:
        return {name: f"one of {len(names)} candidates" for name in names} | full
    chosen = {
        card.name: "the baseline"
        for card in cards
        if card.recipe == BASELINE and card.precision == "fp32" and card.name in names
    }
    auto, alone = auto_rule(names, "cpu"), default_model(names, "cpu")
    by_default = auto.names if auto is not None else filter(None, [alone])
    chosen |= dict.fromkeys(by_default, "answers by default")
    on = _on_fronts(candidates)
    ranked = sorted(
        (name for name in names if on[name]),
        key=lambda name: (-len(on[name]), names.index(name)),
    )
    for name in ranked:
        if name not in chosen and len(chosen) < MOST_FULL:
            chosen[name] = f"on the front of accuracy against {', '.join(on[name])}"
    return chosen | full


def _candidates(results: Sequence[ModelResult], roles: dict[str, Role]) -> list[ModelResult]:
    """Return the results that compete for a front, without other seeds of the same recipe."""
    return [
        result
        for result in results
        if roles.get(result.model) == "in process" and result.accuracy is not None
    ]


def _on_fronts(candidates: Sequence[ModelResult]) -> dict[str, list[TradeOff]]:
    """Map each model to the trade-offs whose Pareto front it is on."""
    found: dict[str, list[TradeOff]] = {result.model: [] for result in candidates}
    for trade_off, front in fronts(candidates).items():
        for name in {candidates[position].model for position in front}:
            found[name].append(trade_off)
    return found


def _part(role: Role, reason: str) -> PlanMeasurement:
    return PlanMeasurement(role, reason, LEFT_OUT[role], rule())


def _why_not(card: ModelCard, others: dict[str, str], on: dict[str, list[TradeOff]]) -> str:
    if has_random_weights(card):
        return "random weights"
    if card.name in others:
        return f"another seed of {others[card.name]}"
    if card.name not in on:
        return "no accuracy could be measured"
    if on[card.name]:
        return f"on a front, but {MOST_FULL} models come before it"
    return "on no front"
