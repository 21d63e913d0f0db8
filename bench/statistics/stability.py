"""Stability of a run: its last three windows must agree within 10 %.

The rule is perf_analyzer's (its ``--stability-percentage``, default 10, over three windows). An
unstable run is marked; its figures are still shown, but never averaged with others.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.samples import median

WINDOWS: Final = 6
"""Number of equal windows in a run, of which the last :data:`COMPARED` are compared."""
COMPARED: Final = 3
TOLERANCE: Final = 0.10
LEAST_PER_WINDOW: Final = 5
"""Minimum number of samples in a window; with fewer there is no verdict."""


def window_medians(samples: Sequence[float] | NDArray[Any]) -> list[float]:
    """Return the median of each of :data:`WINDOWS` windows of samples in time order.

    The result is empty if there are too few samples.
    """
    values = np.asarray(samples, np.float64)
    if values.size < WINDOWS * LEAST_PER_WINDOW:
        return []
    return [median(window) for window in np.array_split(values, WINDOWS)]


def disagreement(windows: Sequence[float]) -> float | None:
    """Return the distance between the last three windows, as a share of their middle one.

    None if there are fewer windows or all values are zero.
    """
    last = sorted(windows[-COMPARED:])
    if len(last) < COMPARED or last[1] <= 0:
        return None
    return (last[-1] - last[0]) / last[1]
