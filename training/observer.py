"""What a training tells whoever is watching."""

from collections.abc import Sequence

from training.history import EpochRow
from training.recipes.schema import Phase


class Observer:
    """Told what happens, in this order; this one ignores it all."""

    def resumed(self, history: Sequence[EpochRow]) -> None:
        """The training goes on after the last epoch of ``history``."""

    def features_extracted(self, done: int, total: int) -> None:
        """A frozen network has been run over ``done`` of ``total`` images, for the cache."""

    def teacher_asked(self, done: int, total: int) -> None:
        """A recipe's teacher has answered for ``done`` of ``total`` images."""

    def epoch_started(self, phase: Phase, epoch: int, steps: int) -> None:
        """Epoch ``epoch`` (1-based, over all phases) starts; it has ``steps`` batches."""

    def step_finished(self, step: int, loss: float, accuracy: float) -> None:
        """``step`` (1-based) of the epoch is done; the two are averages over the epoch so far."""

    def epoch_finished(self, row: EpochRow, *, best: bool) -> None:
        """An epoch is done and its checkpoint written."""

    def evaluating(self, split: str) -> None:
        """All epochs are done; the kept weights are evaluated on ``split``."""
