"""Progress callback type."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Callback with the current activity, the number of finished units and their total."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def labelled(what: str, progress: Progress) -> Progress:
    """Return ``progress`` with a fixed label that replaces the measurement's own."""
    return lambda _, done, total: progress(what, done, total)
