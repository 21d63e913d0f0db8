"""``cifar10 bench all``: every model, measured in every way, then the report. Resumable.

All rows of one session share its run id. ``--resume`` goes on with the newest session of this
machine: what has a row there for the same file (the same SHA-256) is not measured again. What
failed, or was cut off in the middle, is.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure.survey import RunOutcome
from bench.rows.files import Row
from cifar10.errors import BenchError

SESSION_PREFIX = "all-"
"""How the run ids of sessions begin."""


@dataclass(frozen=True)
class Stage:
    """One command of the session."""

    name: str
    is_done: Callable[[Sequence[Row]], bool]
    """Whether a model with these rows was measured. Rows that an interruption cut short do not
    count."""
    measure: Callable[[Sequence[str]], RunOutcome]
    """Measures the models named."""
    names: Callable[[], Sequence[str]] | None = None
    """Which models it is for, asked when its turn has come; None: all."""


@dataclass
class SessionOutcome:
    """What came of a session."""

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
    """Each stage on the models that still need it; an interruption ends it.

    Args:
        stages: in order.
        digests: model → SHA-256 of its file now.
        rows: those of this session so far.
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


def session_of(rows: Sequence[Row], recorder_folder_name: str, *, quick: bool) -> str:
    """The run id of the newest session among a machine's rows.

    Raises:
        BenchError: there is none to go on with.
    """
    sessions = [
        row.run_id for row in rows if row.run_id.startswith(SESSION_PREFIX) and row.quick == quick
    ]
    if not sessions:
        message = (
            f"there is no session to resume in {recorder_folder_name}; start one: cifar10 bench all"
        )
        raise BenchError(message)
    return sessions[-1]


def new_session_id() -> str:
    """A run id that tells a session from a single command."""
    return f"{SESSION_PREFIX}{uuid.uuid4().hex[:8]}"


def _has(stage: Stage, name: str, digest: str, rows: Sequence[Row]) -> bool:
    return stage.is_done([row for row in rows if (row.model, row.digest) == (name, digest)])
