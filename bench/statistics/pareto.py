"""Which models are worth considering: those that no other beats at both things at once."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A model on one trade-off: ``gain`` should be high, ``cost`` low."""

    name: str
    gain: float
    cost: float


def pareto_front(candidates: Sequence[Candidate]) -> frozenset[str]:
    """The names of the candidates that no other dominates.

    One dominates another when it is at least as good at both and better at one; two equal ones
    stand beside each other.
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
