"""Markdown tables, and how numbers look in them. Only here do numbers become text."""

from collections.abc import Sequence
from typing import Final, Literal

from cifar10.accuracy import Accuracy

NOTHING: Final = "–"
"""What stands where there is no figure."""

Align = Literal["left", "right"]
_RULES: Final = {"left": ":--", "right": "--:"}


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[Align]
) -> str:
    """A GitHub-flavoured Markdown table, ending in a newline."""
    lines = [_line(header), _line([_RULES[side] for side in align])]
    lines += [_line([_cell(cell) for cell in row]) for row in rows]
    return "\n".join(lines) + "\n"


def numbers_after_name(header: Sequence[str], words: Sequence[str] = ()) -> list[Align]:
    """The first column and those of ``words`` to the left, the figures after it to the right."""
    return [
        "left" if position == 0 or title in words else "right"
        for position, title in enumerate(header)
    ]


def _cell(text: str) -> str:
    """On one line, with its bars escaped: nothing in it can end the cell or the row."""
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def percent(share: float | None, digits: int = 2) -> str:
    """0.6806 → ``68.06``."""
    return NOTHING if share is None else f"{share * 100:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points: 0.174 → ``17.4``."""
    return NOTHING if difference is None else f"{difference * 100:.1f}"


def accuracy_with_interval(accuracy: Accuracy | None) -> str:
    """``68.06 (67.14–68.97)``: per cent, with the 95 % Wilson interval."""
    if accuracy is None:
        return NOTHING
    return f"{percent(accuracy.accuracy)} ({percent(accuracy.low)}–{percent(accuracy.high)})"


def count(number: float | None) -> str:
    """2122186 → ``2,122,186``."""
    return NOTHING if number is None else f"{number:,.0f}"


def millions(number: float | None) -> str:
    """Three significant digits, in millions: 11877888 → ``11.9``."""
    return NOTHING if number is None else significant(number / 1e6)


def significant(number: float | None, digits: int = 3) -> str:
    """At least ``digits`` significant digits, never an exponent: 0.31415 → ``0.314``."""
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
    """``CPUExecutionProvider`` → ``CPU``."""
    return NOTHING if provider is None else provider.removesuffix("ExecutionProvider")
