"""Results of each epoch, the best epoch, and when to stop.

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
    """Results of one epoch: a line of ``history.csv``."""

    epoch: int
    """Number of the epoch, from 1, over all phases."""
    loss: float
    """Mean cross-entropy in nats over the epoch while the weights changed.

    ``accuracy`` is averaged likewise, a fraction 0–1.
    """
    accuracy: float
    validation_loss: float
    """Loss with the weights at the epoch's end; likewise ``validation_accuracy``."""
    validation_accuracy: float
    seconds: float
    """Wall-clock time of training and validation."""
    learning_rate: float
    phase: str


def best_epoch(history: Sequence[EpochRow]) -> int:
    """Return the epoch with the highest validation accuracy; of equal ones the earliest.

    Raises:
        ValueError: there are no epochs.
    """
    return max(history, key=lambda row: (row.validation_accuracy, -row.epoch)).epoch


def phase_is_over(history: Sequence[EpochRow], phase: Phase) -> bool:
    """Return whether ``phase`` has used up its epochs or its patience.

    Patience counts from the best epoch so far, or from the phase's start if that epoch was earlier.
    """
    rows = [row for row in history if row.phase == phase.name]
    if not rows:
        return False
    waited = rows[-1].epoch - max(best_epoch(history), rows[0].epoch - 1)
    return len(rows) >= phase.epochs or waited >= phase.patience


def history_csv(history: Sequence[EpochRow]) -> str:
    """Return ``history.csv``: a header line, then one line per epoch, numbers unrounded."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(EpochRow)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in history)
    return buffer.getvalue()
