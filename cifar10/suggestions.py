"""Suggest similar names for a name that does not exist: "Did you mean …?"."""

from collections.abc import Iterable
from typing import Final

FLOOR: Final = 0.65
"""Minimum similarity of a suggested name (0 to 1, :class:`difflib.SequenceMatcher`)."""
_MOST: Final = 3


def closest(name: str, existing: Iterable[str]) -> list[str]:
    """Return the existing names most similar to ``name``, best match first; at most three.

    A prefix that all names share (``--``, ``CIFAR10_``) is not compared.
    """
    import difflib  # imported only when a name is misspelt

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
    """Return `` Did you mean NAME?`` with a leading space, or an empty text if no name is
    similar."""
    near = closest(name, existing)
    if not near:
        return ""
    *others, last = near
    return f" Did you mean {', '.join(others)} or {last}?" if others else f" Did you mean {last}?"
