"""What each epoch gave, and what follows from it: the best epoch, and whether to stop.

Pure functions over the rows, so that a resumed training decides exactly as an uninterrupted one.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass

from training.recipes.schema import Phase


@dataclass(frozen=True)
class EpochRow:
    """One epoch: a line of ``history.csv``."""

    epoch: int
    """1-based, counted over all phases."""
    loss: float
    """Cross-entropy in nats, averaged over the epoch while the weights changed; likewise
    ``accuracy``, a fraction 0–1."""
    accuracy: float
    validation_loss: float
    """On the weights at the epoch's end; likewise ``validation_accuracy``."""
    validation_accuracy: float
    seconds: float
    """Training and validation, wall clock."""
    learning_rate: float
    phase: str


def best_epoch(history: Sequence[EpochRow]) -> int:
    """The epoch with the highest validation accuracy; the earlier one of equals.

    Raises:
        ValueError: no epochs.
    """
    return max(history, key=lambda row: (row.validation_accuracy, -row.epoch)).epoch


def phase_is_over(history: Sequence[EpochRow], phase: Phase) -> bool:
    """Whether ``phase`` has run its epochs or its patience.

    Patience runs from the best epoch so far, or from the phase's start when that came earlier.
    """
    rows = [row for row in history if row.phase == phase.name]
    if not rows:
        return False
    waited = rows[-1].epoch - max(best_epoch(history), rows[0].epoch - 1)
    return len(rows) >= phase.epochs or waited >= phase.patience


def history_csv(history: Sequence[EpochRow]) -> str:
    """``history.csv``: a header line, then one line per epoch, numbers unrounded."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(EpochRow)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in history)
    return buffer.getvalue()
