"""How a long measurement says how far it is, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Tell no one."""


def labelled(what: str, progress: Progress) -> Progress:
    """``progress``, told ``what`` whatever the measurement calls itself."""
    return lambda _, done, total: progress(what, done, total)
