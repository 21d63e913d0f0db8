"""Pareto front: the models that no other model beats on both axes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A model's position in one trade-off: ``gain`` should be high, ``cost`` low."""

    name: str
    gain: float
    cost: float


def pareto_front(candidates: Sequence[Candidate]) -> frozenset[str]:
    """Return the names of the candidates that no other dominates.

    A candidate dominates another if it is at least as good on both axes and better on one. Of equal
    candidates, neither dominates.
    """
    return frozenset(
        one.name
        for one in candidates
        if not any(
            other.gain >= one.gain
            and other.cost <= one.cost
            and (other.gain > one.gain or other.cost < one.cost)
            for other in candidates
        )
    )
