"""Observer of a training's progress."""

from collections.abc import Sequence

from training.history import EpochRow
from training.recipes.schema import Phase


class Observer:
    """Observer whose methods are called in this order; this one ignores the calls."""

    def resumed(self, history: Sequence[EpochRow]) -> None:
        """Report that the training continues after the last epoch of ``history``."""

    def features_extracted(self, done: int, total: int) -> None:
        """Report that a frozen network has processed ``done`` of ``total`` images."""

    def teacher_asked(self, done: int, total: int) -> None:
        """Report that a recipe's teacher has classified ``done`` of ``total`` images."""

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        """Report the start of epoch ``epoch`` (from 1, over all phases) with ``steps`` batches."""

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        """Report the end of ``step`` (from 1); the figures are means over the epoch so far."""

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        """Report that an epoch is done and its checkpoint written."""

    def evaluating(self, split: str) -> None:
        """Report that all epochs are done and the kept weights are being evaluated on ``split``."""
