"""Sessions that can be resumed: the rows of one session of one command share a run id.

``--resume`` continues the newest session of this machine: what has a row there for the same file
(the same SHA-256) is not measured again. What failed, or was cut off in the middle, is.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure.survey import RunOutcome
from bench.rows.row import Row
from cifar10.errors import BenchError


@dataclass(frozen=True)
class Session:
    """One session of one command."""

    run_id: str
    rows: tuple[Row, ...] = ()
    """Rows that it has already. Failures are among them, and are tried again."""


def new_session(command: str) -> Session:
    """A session with no rows yet, whose run id names its command."""
    return Session(f"{command}-{uuid.uuid4().hex[:8]}")


def newest_session(
    command: str, rows: Sequence[Row], *, quick: bool, digest: str | None = None
) -> Session:
    """The newest session of a command.

    Args:
        command: its name.
        rows: a machine's, oldest first.
        quick: whether it was started with ``--quick``.
        digest: of a model's file that the session must have rows of; None: any.

    Raises:
        BenchError: there is none to resume.
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
    """One part of ``bench all``."""

    name: str
    is_done: Callable[[Sequence[Row]], bool]
    """Whether a model with these rows was measured. Rows that an interruption cut short do not
    count."""
    measure: Callable[[Sequence[str]], RunOutcome]
    """Measures the models named."""
    names: Callable[[], Sequence[str]] | None = None
    """The models it is for, asked when its turn has come; None: all."""


@dataclass
class SessionOutcome:
    """Result of a session."""

    measured: dict[str, list[str]] = field(default_factory=dict)
    """Stage → models measured now."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Stage → models that had their rows."""
    failed: dict[str, str] = field(default_factory=dict)
    """Model → where it failed, and why; the last stage's reason where several failed."""
    interrupted: bool = False


def run_stages(
    stages: Sequence[Stage],
    digests: Mapping[str, str],
    rows: Callable[[], Sequence[Row]],
    tell: Callable[[str], None] = lambda _: None,
) -> SessionOutcome:
    """Run each stage on the models that still need it; an interruption ends the session.

    Args:
        stages: in order.
        digests: model → SHA-256 of its file now.
        rows: reads those of this session so far.
        tell: told what is done next.
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
