"""Row of one trial of ``cifar10 bench chaos``."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChaosMeasurement:
    """What the service did under one kind of fault or attack."""

    trial: str
    """Name of the trial: ``kill``, ``fuzz``, ``slow_readers`` and so on."""
    workers: int
    seconds: float
    status_counts: dict[str, int]
    """HTTP status → requests; ``no answer`` where none came."""
    figures: dict[str, float]
    """What else was counted or timed; the unit is in the name."""
    memory_bytes: tuple[tuple[float, int], ...]
    """(seconds from the start, memory of all processes of the server)."""
    promise: str
    """What the service has to do."""
    holds: bool
    title: str = ""
    """Heading for a report; empty in rows written before 27 November 2026."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Kind of input and what came of it → inputs, where a trial counts them."""
    broken: tuple[str, ...] = ()
    """Parts of the promise that did not hold, each with its numbers."""
