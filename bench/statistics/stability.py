"""Whether a run was stable: its last three windows must agree within 10 %.

The rule is perf_analyzer's (its ``--stability-percentage``, default 10, over three windows). An
unstable run is marked; its figures are shown all the same and never averaged with others.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import median

WINDOWS: Final = 6
"""Number of windows of equal length in a run; the last :data:`COMPARED` are compared."""
COMPARED: Final = 3
TOLERANCE: Final = 0.10
LEAST_PER_WINDOW: Final = 5
"""With fewer samples in a window nothing can be said."""


def window_medians(samples: Sequence[float] | NDArray[Any]) -> list[float]:
    """Median of each of :data:`WINDOWS` windows of samples that are in the order of time;
    none when there are too few."""
    values = np.asarray(samples, np.float64)
    if values.size < WINDOWS * LEAST_PER_WINDOW:
        return []
    return [median(window) for window in np.array_split(values, WINDOWS)]


def disagreement(windows: Sequence[float]) -> float | None:
    """How far the last three windows lie apart, as a share of their middle one; None when there
    are fewer, or nothing happened in them."""
    last = sorted(windows[-COMPARED:])
    if len(last) < COMPARED or last[1] <= 0:
        return None
    return (last[-1] - last[0]) / last[1]
