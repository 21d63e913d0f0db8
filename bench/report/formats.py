"""Format numbers for the report."""

from collections.abc import Callable
from typing import Final

from bench.statistics.samples import Spread
from cifar10.accuracy import Accuracy
from cifar10.paired import PairedTest

NOTHING: Final = "–"
"""Text where there is no figure."""

REQUESTS_PER_S_SHARED: Final = "Requests/s, shared cores"
"""Successful responses per second at full speed, the load generator on the server's cores."""

REQUESTS_PER_S_OWN_CORE: Final = "Requests/s, one core"
"""Successful responses per second at full speed, the server and the load generator each on a
core."""


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in per cent: 0.6806 → ``68.06``."""
    return NOTHING if share is None else f"{share * 100:.{digits}f}"


def points(difference: float | None) -> str:
    """Return a difference of shares in percentage points: 0.174 → ``17.4``."""
    return NOTHING if difference is None else f"{difference * 100:.1f}"


def accuracy_with_interval(accuracy: Accuracy | None) -> str:
    """Return an accuracy in per cent with its 95 % interval: ``68.06 (67.14–68.97)``."""
    if accuracy is None:
        return NOTHING
    return f"{percent(accuracy.accuracy)} ({percent(accuracy.low)}–{percent(accuracy.high)})"


def count(number: float | None) -> str:
    """Return a whole number with separators: 2122186 → ``2,122,186``."""
    return NOTHING if number is None else f"{number:,.0f}"


def millions(number: float | None) -> str:
    """Return a number in millions, with three significant digits: 11877888 → ``11.9``."""
    return NOTHING if number is None else significant(number / 1e6)


def significant(number: float | None, digits: int = 3) -> str:
    """Return at least ``digits`` significant digits, never an exponent: 0.31415 → ``0.314``."""
    if number is None:
        return NOTHING
    if number == 0:
        return "0"
    magnitude = 0
    while abs(number) >= 10 ** (magnitude + 1):
        magnitude += 1
    while abs(number) < 10**magnitude:
        magnitude -= 1
    return f"{number:,.{max(0, digits - 1 - magnitude)}f}"


def short_provider(provider: str | None) -> str:
    """Return a provider's short name: ``CPUExecutionProvider`` → ``CPU``."""
    return NOTHING if provider is None else provider.removesuffix("ExecutionProvider")


def p_value(p: float) -> str:
    """Return a p-value, ``0.032``, or ``< 0.0001`` for any below that."""
    return "< 0.0001" if p < 1e-4 else significant(p, 2)


def difference(test: PairedTest) -> str:
    """Return a difference in points with its 95 % interval: ``+1.20 (+0.60 to +1.80)``."""
    return f"{test.difference * 100:+.2f} ({test.low * 100:+.2f} to {test.high * 100:+.2f})"


def spread_text(spread: Spread | None, number: Callable[[float | None], str] = significant) -> str:
    """Return the median with the lowest and the highest value: ``4.1 (3.9–4.6)``."""
    if spread is None:
        return NOTHING
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"
