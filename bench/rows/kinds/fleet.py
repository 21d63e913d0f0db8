"""Rows about several replicas behind a balancer."""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement


@dataclass(frozen=True, config=STRICT)
class FleetMeasurement(Measurement):
    """Requests to a fleet at a steady rate while one thing is done to its replicas."""

    kind: ClassVar[str] = "fleet"

    scenario: str
    title: str
    """Description of the scenario for readers."""
    promise: str
    balancer: str
    """Name and version of the balancer."""
    replicas: int
    workers: int
    """Number of workers of each replica."""
    rate_per_s: float
    """Offered rate: Poisson arrivals."""
    seconds: float
    """Time from the first request's due time to the last response."""
    status_counts: dict[str, int]
    """Number of requests by HTTP status or ``no answer``."""
    longest_gap_s: float
    """Longest time between two successive answers of 200."""
    quiet_p99_ms: float | None
    """99th percentile of the time from when a request was due, before the first fault."""
    p99_ms: float | None
    """The same percentile after the first fault."""
    faults: int
    """Number of faults, each on one replica."""
    out_of_rotation_s: tuple[float, ...]
    """Time of each fault until the balancer sent the replica no more requests."""
    in_flight: int
    """Number of requests on the replicas when the faults began."""
    sent_to_faulty: int
    """Number of requests sent to faulty replicas until they were out of rotation."""
    back_s: tuple[float, ...]
    """Time of each fault until the replica got requests again, measured from the fault if the trial
    restarts the replica, otherwise from the fault's end."""
    broken: tuple[str, ...]
    """Parts of the promise that did not hold, each with its numbers."""
    load_average: float
    """Load of the machine in the minute before the trial, from others and from this trial's own
    preparations."""

    @property
    def key(self) -> str:
        """Key: scenario, replicas and workers."""
        return f"scenario={self.scenario} replicas={self.replicas} workers={self.workers}"

    @property
    def requests(self) -> int:
        """Number of requests, with any outcome."""
        return sum(self.status_counts.values())

    @property
    def failed(self) -> int:
        """Number of requests without a 200."""
        return self.requests - self.status_counts.get("200", 0)
