"""What ``bench all`` decided to measure of a model, and why not more: a row, so that the report can
say it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanMeasurement:
    """The part that a model has in one session."""

    role: str
    """A :data:`bench.session.plan.Role`."""
    reason: str
    """Why that one."""
    left_out: tuple[str, ...]
    """What was not measured of it, in words."""
    rule: str
    """By which the session's models were given their parts."""
