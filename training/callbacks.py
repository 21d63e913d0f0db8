"""Keras callbacks of each step of an epoch."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.observer import Observer
from training.recipes.schema import Phase
from training.schedule import learning_rate


class LearningRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets the phase's learning rate before each step, where it has a schedule."""

    def __init__(self, phase: Phase, done: int, steps: int) -> None:
        super().__init__()
        self._phase, self._done, self._steps = phase, done, steps
        self.first = learning_rate(phase, done, steps)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the rate of step ``batch`` of this epoch."""
        if self._phase.schedule is not None:
            rate = learning_rate(self._phase, self._done + batch, self._steps)
            self.model.optimizer.learning_rate.assign(rate)

    def of_epoch(self, steps: int) -> NDArray[np.float32]:
        """Return the rates of all ``steps`` of this epoch, float32 (steps,)."""
        rates = [
            learning_rate(self._phase, self._done + step, self._steps) for step in range(steps)
        ]
        return np.array(rates, np.float32)


class StepCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells an observer of each step."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report step ``batch``, from 0."""
        logs = logs or {}
        self._observer.step_finished(batch + 1, float(logs["loss"]), float(logs["accuracy"]))
