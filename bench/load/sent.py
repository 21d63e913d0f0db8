"""Record of a load loop: when each query was due, sent and answered."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import percentile
from cifar10.errors import BenchError

OK: Final = 200
NO_ANSWER: Final = 0
"""The status of a request that got none."""


@dataclass(frozen=True)
class Sent:
    """Every query of one run, in the order in which they were due; seconds from the start."""

    due_s: NDArray[np.float64]
    """When it was to be sent; in a closed loop, when it was sent."""
    sent_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    status: NDArray[np.int16]
    """HTTP status of the answer, or :data:`NO_ANSWER`; of a query of several requests, the first
    that is no 200."""

    def after(self, warm_up_s: float) -> "Sent":
        """Without the queries that were due in the warm-up."""
        return self._only(self.due_s >= warm_up_s)

    def answered_within(self, start_s: float, end_s: float) -> "Sent":
        """Only the queries that ended in that time."""
        return self._only((self.done_s >= start_s) & (self.done_s < end_s))

    def _only(self, kept: NDArray[np.bool_]) -> "Sent":
        return Sent(self.due_s[kept], self.sent_s[kept], self.done_s[kept], self.status[kept])

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Whether each query was answered with a 200."""
        right: NDArray[np.bool_] = self.status == OK
        return right

    @property
    def queries(self) -> int:
        """Number of queries."""
        return int(self.due_s.size)

    @property
    def answered(self) -> int:
        """Number of queries that succeeded."""
        return int(self.succeeded.sum())

    @property
    def failed(self) -> int:
        """Number of queries that did not succeed."""
        return self.queries - self.answered

    @property
    def times_ms(self) -> NDArray[np.float64]:
        """Time of each successful query from when it was due, in ms."""
        return ((self.done_s - self.due_s) * 1e3)[self.succeeded]

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile of :attr:`times_ms`, rounded to a microsecond; None where none succeeded."""
        times = self.times_ms
        return round(percentile(times, percent), 3) if times.size else None

    def request_rate(self, seconds: float) -> float:
        """Successful answers per second in the first ``seconds``."""
        return self.answered_within(0, seconds).answered / seconds

    def require_answers(self, what: str) -> None:
        """Do nothing where at least one query succeeded.

        Raises:
            BenchError: none did.
        """
        if not self.succeeded.any():
            message = f"no request of {what} succeeded ({self.queries} were sent)"
            raise BenchError(message)
