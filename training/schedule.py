"""The learning rate at each step, from the step's number alone: a resumed training has the same."""

import math

from training.recipes.schema import Phase


def learning_rate(phase: Phase, step: int, steps: int) -> float:
    """The learning rate for ``step`` (0-based) of the phase's ``steps``.

    Without a schedule it is the phase's own throughout.
    """
    schedule = phase.schedule
    if schedule is None:
        return phase.learning_rate
    rising = schedule.rise * steps
    if step < rising:
        return phase.learning_rate * (step + 1) / (rising + 1)
    done = (step - rising) / max(1.0, steps - rising)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
