"""Arrival times of an open loop, drawn before the first request is sent.

The same rate, time and seed give the same arrivals.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["poisson", "constant"]


def arrivals_s(
    rate_per_s: float, seconds: float, *, seed: int, shape: Shape = "poisson"
) -> NDArray[np.float64]:
    """Return the due times of requests, in seconds after the start: ascending, below ``seconds``.

    ``poisson`` draws exponential gaps (MLPerf Inference rules, Server scenario: "Poisson
    distribution"); ``constant`` sends at equal intervals.

    Raises:
        ValueError: the rate or the time is not positive.
    """
    if rate_per_s <= 0 or seconds <= 0:
        message = f"rate and time must be positive, got {rate_per_s}/s for {seconds} s"
        raise ValueError(message)
    if shape == "constant":
        return np.arange(0, seconds, 1 / rate_per_s)
    generator = np.random.default_rng(seed)
    expected = rate_per_s * seconds
    found = np.empty(0)
    last = 0.0
    while last < seconds:
        gaps = generator.exponential(1 / rate_per_s, int(expected + 4 * expected**0.5) + 8)
        found = np.concatenate([found, last + np.cumsum(gaps)])
        last = float(found[-1])
    return found[found < seconds]
