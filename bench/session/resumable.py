"""Going on with what was interrupted: the rows of one session of one command share a run id."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.rows.files import Row
from cifar10.errors import BenchError


@dataclass(frozen=True)
class Session:
    """One session of one command."""

    run_id: str
    rows: tuple[Row, ...] = field(default=())
    """What it has already; failures are among them, and are tried again."""


def new_session(command: str) -> Session:
    """One that has nothing yet; its id tells it from other commands."""
    return Session(f"{command}-{uuid.uuid4().hex[:8]}")


def newest_session(command: str, rows: Sequence[Row], *, quick: bool) -> Session:
    """The newest of ``command`` among a machine's rows, oldest first.

    Raises:
        BenchError: there is none to go on with.
    """
    ids = [
        row.run_id for row in rows if row.run_id.startswith(f"{command}-") and row.quick is quick
    ]
    if not ids:
        message = f"there is no session to resume; start one: cifar10 bench {command}"
        raise BenchError(message)
    return Session(ids[-1], tuple(row for row in rows if row.run_id == ids[-1]))
