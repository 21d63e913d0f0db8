"""Learning rate as a function of the step number, so that a resumed training repeats it."""

import math

from training.recipes.schema import Phase


def learning_rate(phase: Phase, step: int, steps: int) -> float:
    """Return the learning rate for ``step`` (from 0) of the phase's ``steps``.

    Without a schedule, it is the phase's constant rate.
    """
    schedule = phase.schedule
    if schedule is None:
        return phase.learning_rate
    rising = schedule.rise * steps
    if step < rising:
        return phase.learning_rate * (step + 1) / (rising + 1)
    done = (step - rising) / max(1.0, steps - rising)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
