"""Add up metrics in memory, so that a batch of requests writes each number once.

Writing a number takes a lock and a write to a shared file, and a request changes about ten numbers.
"""

from bisect import bisect_left
from typing import Any

from prometheus_client import Histogram


class Tally:
    """Increments of counters, gauges and histograms that are still to be written. Use it in the
    event loop's thread only."""

    def __init__(self) -> None:
        self._amounts: dict[Any, float] = {}
        """Number (anything with ``inc``) → what to add to it."""

    def add(self, number: Any, amount: float = 1.0) -> None:
        """Add ``amount`` to a counter or a gauge, or to a number of a histogram."""
        amounts = self._amounts
        amounts[number] = amounts.get(number, 0.0) + amount

    def observe(self, histogram: Histogram, value: float) -> None:
        """Add one observation to a histogram."""
        amounts, total = self._amounts, histogram._sum
        bucket = histogram._buckets[bisect_left(histogram._upper_bounds, value)]
        amounts[bucket] = amounts.get(bucket, 0.0) + 1.0
        amounts[total] = amounts.get(total, 0.0) + value

    def write(self) -> None:
        """Write all numbers that have changed."""
        if self._amounts:
            amounts, self._amounts = self._amounts, {}
            for number, amount in amounts.items():
                if amount:
                    number.inc(amount)
