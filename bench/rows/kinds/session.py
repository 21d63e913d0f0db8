"""Rows about a session: what it decided to measure, what failed, and how ``compare`` judged runs
whose truth is known."""

from typing import ClassVar, Final

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement

BASELINE: Final = "simple_cnn"
"""Recipe that all others are compared with: the reference study's own CNN, at full precision."""

_REASON_LENGTH: Final = 160


@dataclass(frozen=True, config=STRICT)
class PlanMeasurement(Measurement):
    """The part that a model has in one session, so that the report can say why not more."""

    kind: ClassVar[str] = "plan"

    role: str
    """A :data:`bench.session.plan.Role`."""
    reason: str
    """Why that role."""
    left_out: tuple[str, ...]
    """What was not measured, in words."""
    rule: str
    """Rule by which the session's models were given their parts."""


@dataclass(frozen=True, config=STRICT)
class FailureMeasurement(Measurement):
    """A measurement that could not be made: a row that says why, not a missing row."""

    kind: ClassVar[str] = "failure"

    stage: str
    """The kind that failed, or ``open``: the model could not even be loaded."""
    error: str
    """The exception's class."""
    message: str

    @property
    def key(self) -> str:
        """One per stage."""
        return self.stage

    @property
    def reason(self) -> str:
        """What failed and why, on one line."""
        message = " ".join(self.message.split())
        if len(message) > _REASON_LENGTH:
            message = message[: _REASON_LENGTH - 1] + "…"
        return f"failed at {self.stage}: {self.error}: {message}"


@dataclass(frozen=True, config=STRICT)
class Trial:
    """One comparison against the baseline."""

    side: str
    planted: str
    """``nothing``, ``server`` or ``accuracy``."""
    findings: int
    """How many things were compared."""
    regression: bool
    """Whether ``compare`` called it one."""
    worst: str
    """What changed most, a regression before all else."""
    unit: str
    """``ratio`` or ``points``."""
    change: float
    low: float
    high: float
    """99 % interval of ``change``."""


@dataclass(frozen=True, config=STRICT)
class SensitivityMeasurement(Measurement):
    """All trials of one self-test of ``compare``."""

    kind: ClassVar[str] = "sensitivity"

    device: str
    rounds: int
    """Windows of load on each side, taken in turn."""
    users: int
    seconds: float
    """Length of one window."""
    tolerance_percent: float
    tolerance_points: float
    server_cpu_us: float
    """CPU time a request of the unchanged server."""
    planted_delay_us: float
    """CPU time added to each image in the slower server."""
    lost_points: float
    """Points lost by the less accurate model."""
    trials: tuple[Trial, ...]

    @property
    def key(self) -> str:
        """One per device."""
        return f"device={self.device}"

    @property
    def false_alarms(self) -> int:
        """Regressions reported where nothing was changed."""
        return sum(trial.regression for trial in self.trials if trial.planted == "nothing")

    @property
    def missed(self) -> tuple[str, ...]:
        """What was planted and not reported."""
        return tuple(
            trial.side
            for trial in self.trials
            if trial.planted != "nothing" and not trial.regression
        )

    @property
    def holds(self) -> bool:
        """Whether there was no false alarm and nothing was missed."""
        return not self.false_alarms and not self.missed
