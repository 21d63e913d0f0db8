""" "Did you mean …?" for names that do not exist."""

from collections.abc import Iterable
from typing import Final

FLOOR: Final = 0.65
"""Least similarity (0 to 1, :class:`difflib.SequenceMatcher`) of a name that is suggested."""
_MOST: Final = 3


def closest(name: str, existing: Iterable[str]) -> list[str]:
    """Return the existing names most like ``name``, the likeliest first; at most three.

    What all existing names begin with (``--``, ``CIFAR10_``) says nothing and is not compared.
    """
    import difflib  # only a misspelt name pays for it

    there = list(dict.fromkeys(existing))
    shared = _shared_start([name, *there]) if len(there) > 1 else ""
    wanted = name.removeprefix(shared).lower()
    scored = [
        (difflib.SequenceMatcher(a=one.removeprefix(shared).lower(), b=wanted).ratio(), one)
        for one in there
    ]
    near = sorted((pair for pair in scored if pair[0] >= FLOOR), key=lambda pair: -pair[0])
    return [one for _, one in near[:_MOST]]


def _shared_start(names: list[str]) -> str:
    first, last = min(names), max(names)
    for position, letter in enumerate(first):
        if letter != last[position]:
            return first[:position]
    return first


def did_you_mean(name: str, existing: Iterable[str]) -> str:
    """Return `` Did you mean NAME?`` with a leading space, or nothing when no name is near."""
    near = closest(name, existing)
    if not near:
        return ""
    *others, last = near
    return f" Did you mean {', '.join(others)} or {last}?" if others else f" Did you mean {last}?"
