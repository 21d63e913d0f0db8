"""Resumable sessions: all rows of one session share a run id.

``--resume`` continues the newest session of this machine. A model with a row for the same file (the
same SHA-256) is skipped. Failed and interrupted measurements are repeated.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure.survey import RunOutcome
from bench.rows.row import Row
from cifar10.errors import BenchError


@dataclass(frozen=True)
class Session:
    """A session of one command."""

    run_id: str
    rows: tuple[Row, ...] = ()
    """Rows recorded so far. They include failures, which are tried again."""


def new_session(command: str) -> Session:
    """Return a session without rows, whose run id contains the command's name."""
    return Session(f"{command}-{uuid.uuid4().hex[:8]}")


def newest_session(
    command: str, rows: Sequence[Row], *, quick: bool, digest: str | None = None
) -> Session:
    """Return a command's newest session.

    Args:
        rows: rows of one machine, oldest first.
        digest: SHA-256 of a model file that the session must have rows for; None: any.

    Raises:
        BenchError: there is no session to resume.
    """
    ids = [
        row.run_id
        for row in rows
        if row.run_id.startswith(f"{command}-")
        and row.quick is quick
        and digest in (None, row.digest)
    ]
    if not ids:
        message = f"there is no session to resume; start one: cifar10 bench {command}"
        raise BenchError(message)
    return Session(ids[-1], tuple(row for row in rows if row.run_id == ids[-1]))


@dataclass(frozen=True)
class Stage:
    """One stage of ``bench all``."""

    name: str
    is_done: Callable[[Sequence[Row]], bool]
    """Return whether these rows of a model are complete; interrupted rows do not count."""
    measure: Callable[[Sequence[str]], RunOutcome]
    """Measures the named models."""
    names: Callable[[], Sequence[str]] | None = None
    """Returns the models to measure, called when the stage starts; None: all."""


@dataclass
class SessionOutcome:
    """Result of a session."""

    measured: dict[str, list[str]] = field(default_factory=dict)
    """Models measured in this session, by stage."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Models skipped because they had rows, by stage."""
    failed: dict[str, str] = field(default_factory=dict)
    """Failed models, with the stage and the reason of the last failure."""
    interrupted: bool = False


def run_stages(
    stages: Sequence[Stage],
    digests: Mapping[str, str],
    rows: Callable[[], Sequence[Row]],
    tell: Callable[[str], None] = lambda _: None,
) -> SessionOutcome:
    """Run each stage on the models that still need it; an interruption ends the session.

    Args:
        digests: model → SHA-256 of its file now.
        rows: reads this session's rows so far.
        tell: receives a line about each stage as it starts.
    """
    outcome = SessionOutcome()
    for number, stage in enumerate(stages, start=1):
        have = rows()
        concerned = list(digests) if stage.names is None else list(stage.names())
        skipped = [name for name in concerned if _has(stage, name, digests[name], have)]
        todo = [name for name in concerned if name not in skipped]
        outcome.skipped[stage.name] = skipped
        if not todo:
            tell(f"{number}/{len(stages)} {stage.name}: nothing left to do")
            continue
        tell(f"{number}/{len(stages)} {stage.name}: {', '.join(todo)}")
        found = stage.measure(todo)
        outcome.measured[stage.name] = found.measured
        outcome.failed |= found.failed
        if found.interrupted:
            outcome.interrupted = True
            break
    return outcome


def _has(stage: Stage, name: str, digest: str, rows: Sequence[Row]) -> bool:
    return stage.is_done([row for row in rows if (row.model, row.digest) == (name, digest)])
