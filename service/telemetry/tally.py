"""Add up metrics in memory and write them a few times a second.

Writing a number takes a lock, a system call for the process id and a write to a shared file, and a
request changes about fifteen numbers.
"""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from typing import Any, Final

from prometheus_client import Gauge, Histogram

WRITE_SECONDS: Final = 0.05
"""Longest time until other workers see a change. A worker that is killed loses pending changes."""


class Tally:
    """Changes of counters, gauges and histograms that are not yet written.

    Not thread-safe: use it on the event loop only.
    """

    def __init__(self) -> None:
        self._amounts: defaultdict[Any, float] = defaultdict(float)
        """Counter or gauge → amount to add."""
        self._observed: defaultdict[Histogram, list[float]] = defaultdict(list)
        self._values: dict[Gauge, float] = {}
        """Gauge → its new value."""
        self._timer_is_set = False

    def add(self, number: Any, amount: float = 1.0) -> None:
        """Add ``amount`` to a counter or a gauge."""
        self._amounts[number] += amount

    def observe(self, histogram: Histogram, value: float) -> None:
        """Add one observation to a histogram."""
        self._observed[histogram].append(value)

    def set(self, gauge: Gauge, value: float) -> None:
        """Set a gauge."""
        self._values[gauge] = value

    def write_soon(self) -> None:
        """Write all changes, including later ones, after :data:`WRITE_SECONDS`."""
        if not self._timer_is_set:
            self._timer_is_set = True
            asyncio.get_running_loop().call_later(WRITE_SECONDS, self._write_on_time)

    def _write_on_time(self) -> None:
        self._timer_is_set = False
        self.write()

    def write(self) -> None:
        """Write all numbers that have changed."""
        amounts, self._amounts = self._amounts, defaultdict(float)
        for number, amount in amounts.items():
            if amount:
                number.inc(amount)
        observed, self._observed = self._observed, defaultdict(list)
        for histogram, values in observed.items():
            _observe_all(histogram, values)
        set_to, self._values = self._values, {}
        for gauge, value in set_to.items():
            gauge.set(value)


def _observe_all(histogram: Histogram, values: list[float]) -> None:
    histogram._sum.inc(sum(values))
    values.sort()
    below = 0
    for bound, bucket in zip(histogram._upper_bounds, histogram._buckets, strict=True):
        until = bisect_right(values, bound, below)
        if until > below:
            bucket.inc(until - below)
            below = until
        if below == len(values):
            break
