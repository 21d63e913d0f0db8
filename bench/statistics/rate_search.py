"""The highest rate that holds: up (or down) in geometric steps, then bisection, then once more.

Pure: what a try is, and how long it takes, is the caller's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class RateTry:
    """One rate that was tried, and what came of it."""

    rate_per_s: float
    """Offered."""
    queries: int
    failed: int
    """Of them, not answered with a 200."""
    p99_ms: float | None
    """From the intended send time, of those that succeeded; None where none did."""
    held: bool
    """p99 within the bound and nothing failed."""


@dataclass(frozen=True)
class SearchPlan:
    """How finely, and how long, to search."""

    growth: float = 1.6
    precision: float = 0.08
    """Bisection ends when the bracket is this narrow, relative to its lower end."""
    tries: int = 12
    """At most, confirmations not counted."""
    confirmations: int = 5
    """The rate found is tried again, so that luck is not reported; where it fails, a lower one is,
    by :attr:`precision`, then by its square and so on, at most this often."""


DEFAULT_SEARCH: Final = SearchPlan()

Attempt = Callable[[float], RateTry]


def search_rate(
    attempt: Attempt, first_rate_per_s: float, plan: SearchPlan = DEFAULT_SEARCH
) -> tuple[RateTry | None, list[RateTry]]:
    """Find the highest rate that holds.

    Returns:
        The confirming try, or None where no rate held twice; and every try, in order.
    """
    tries: list[RateTry] = []
    low: float | None = None
    high: float | None = None
    rate = first_rate_per_s
    while len(tries) < plan.tries:
        found = attempt(rate)
        tries.append(found)
        if found.held:
            low = rate
        else:
            high = rate
        if low is None:
            rate /= plan.growth
        elif high is None:
            rate *= plan.growth
        elif high <= low * (1 + plan.precision):
            break
        else:
            rate = math.sqrt(low * high)
    if low is None:
        return None, tries
    step_down = 1 + plan.precision
    for _ in range(plan.confirmations):
        found = attempt(low)
        tries.append(found)
        if found.held:
            return found, tries
        low /= step_down
        step_down *= step_down
    return None, tries
