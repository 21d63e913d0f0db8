"""Search for the highest sustainable rate: geometric steps, bisection, then confirmation.

Pure: the caller supplies the function that tries a rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class RateTry:
    """Result of trying one rate."""

    rate_per_s: float
    """Offered rate."""
    queries: int
    failed: int
    """Number of requests without a 200 response."""
    p99_ms: float | None
    """99th percentile from the intended send time, over successful requests; None without any."""
    held: bool
    """Whether p99 is within the bound and nothing failed."""


@dataclass(frozen=True)
class SearchPlan:
    """Precision and limits of the search."""

    growth: float = 1.6
    precision: float = 0.08
    """Relative width of the bracket at which bisection ends, with respect to its lower end."""
    tries: int = 12
    """Maximum number of tries, not counting confirmations."""
    confirmations: int = 5
    """Maximum number of confirmations, which rule out a lucky result.

    If a confirmation fails, the rate is lowered by :attr:`precision`, then by its square and so on.
    """


DEFAULT_SEARCH: Final = SearchPlan()

Attempt = Callable[[float], RateTry]


def search_rate(
    attempt: Attempt, first_rate_per_s: float, plan: SearchPlan = DEFAULT_SEARCH
) -> tuple[RateTry | None, list[RateTry]]:
    """Find the highest rate that holds.

    Returns:
        The confirming try, or None if no rate held twice; and every try, in order.
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
