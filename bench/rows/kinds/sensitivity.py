"""What ``cifar10 bench sensitivity`` leaves: how ``compare`` judged runs whose truth is known."""

from dataclasses import dataclass


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class SensitivityMeasurement:
    """All trials of one session."""

    device: str
    rounds: int
    """Windows of load on each side, taken in turn."""
    users: int
    seconds: float
    """Of one window."""
    tolerance_percent: float
    tolerance_points: float
    server_cpu_us: float
    """CPU time a request of the unchanged server."""
    planted_delay_us: float
    """Of CPU, an image, in the slower server."""
    lost_points: float
    """By the less accurate model."""
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
        """No false alarm, and nothing missed."""
        return not self.false_alarms and not self.missed
