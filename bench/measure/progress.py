"""Progress callback type: how a long measurement says how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def labelled(what: str, progress: Progress) -> Progress:
    """``progress`` with a fixed label in place of the measurement's own."""
    return lambda _, done, total: progress(what, done, total)
