"""One trial of ``cifar10 bench chaos``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChaosMeasurement:
    """What the service did while something was done to it."""

    trial: str
    """``kill``, ``reload``, ``fuzz``, ``bombs``, ``soak`` or ``large``."""
    workers: int
    seconds: float
    status_counts: dict[str, int]
    """HTTP status → requests; ``no answer`` where none came."""
    figures: dict[str, float]
    """What else was counted or timed; the unit is in the name."""
    memory_bytes: tuple[tuple[float, int], ...]
    """(seconds from the start, what all processes of the server took)."""
    promise: str
    """What was to hold."""
    holds: bool
