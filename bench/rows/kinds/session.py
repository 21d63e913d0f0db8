"""Rows about a session: its plan, its failures, and the self-test of ``compare``."""

from typing import ClassVar, Final

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement

BASELINE: Final = "simple_cnn"
"""Recipe that all others are compared with: the reference study's CNN at full precision."""

_REASON_LENGTH: Final = 160


@dataclass(frozen=True, config=STRICT)
class PlanMeasurement(Measurement):
    """A model's role in one session, so that the report can explain missing measurements."""

    kind: ClassVar[str] = "plan"

    role: str
    """Role: one of :data:`bench.session.plan.Role`."""
    reason: str
    """Reason for the role."""
    left_out: tuple[str, ...]
    """Measurements that were left out, in words."""
    rule: str
    """Rule that assigned the roles of the session's models."""


@dataclass(frozen=True, config=STRICT)
class FailureMeasurement(Measurement):
    """A failed measurement, with its reason."""

    kind: ClassVar[str] = "failure"

    stage: str
    """Kind that failed, or ``open`` if the model could not be loaded."""
    error: str
    """Class name of the exception."""
    message: str
    provider: str | None = None
    """Execution provider that it is about; None: ONNX Runtime's, whichever was chosen."""

    @property
    def key(self) -> str:
        """Key: stage, and another engine than ONNX Runtime."""
        return self.stage if self.provider is None else f"{self.stage} provider={self.provider}"

    @property
    def reason(self) -> str:
        """Failed stage and its reason, on one line."""
        message = " ".join(self.message.split())
        if len(message) > _REASON_LENGTH:
            message = message[: _REASON_LENGTH - 1] + "…"
        return f"failed at {self.stage}: {self.error}: {message}"


@dataclass(frozen=True, config=STRICT)
class Trial:
    """One comparison against the baseline."""

    side: str
    planted: str
    """Planted change: ``nothing``, ``server`` or ``accuracy``."""
    findings: int
    """Number of figures compared."""
    regression: bool
    """Whether ``compare`` reported a regression."""
    worst: str
    """Figure that changed most; a regression comes first."""
    unit: str
    """Unit of ``change``: ``ratio`` or ``points``."""
    change: float
    low: float
    high: float
    """Upper end of the 99 % interval of ``change``."""


@dataclass(frozen=True, config=STRICT)
class SensitivityMeasurement(Measurement):
    """All trials of one self-test of ``compare``."""

    kind: ClassVar[str] = "sensitivity"

    device: str
    rounds: int
    """Number of interleaved load windows on each side."""
    users: int
    seconds: float
    """Duration of one window."""
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
        """Key: device."""
        return f"device={self.device}"

    @property
    def false_alarms(self) -> int:
        """Number of regressions reported for unchanged sides."""
        return sum(trial.regression for trial in self.trials if trial.planted == "nothing")

    @property
    def missed(self) -> tuple[str, ...]:
        """Planted regressions that were not reported."""
        return tuple(
            trial.side
            for trial in self.trials
            if trial.planted != "nothing" and not trial.regression
        )

    @property
    def holds(self) -> bool:
        """Whether there was no false alarm and no missed regression."""
        return not self.false_alarms and not self.missed
