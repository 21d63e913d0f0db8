"""Raw rows on disk: ``results/<machine>/<kind>.jsonl``, one JSON object a line, only appended to.

A row refers to its machine's fingerprint; ``machines.jsonl`` beside it holds what that stands for.
Measuring again appends, and on reading the newest row wins (:func:`newest`): nothing measured is
ever overwritten.

A row is written with one ``write`` and a final newline. A line cut off by a crash can therefore
only be the last one: it is reported and passed over, and every row before it stands. Damage
anywhere else is an error.
"""

import contextlib
import errno
import io
import json
import logging
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.rows.kinds.measurements import (
    ADDED_LATER,
    KINDS,
    FailureMeasurement,
    Measurement,
    key_of,
    kind_of,
)
from bench.rows.machine import Machine
from cifar10.environment import PROJECT_ROOT, cache_dir
from cifar10.errors import BenchError
from cifar10.records import RecordError, from_json

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
MACHINES_FILE: Final = "machines.jsonl"


@dataclass(frozen=True)
class DatasetReference:
    """Which images a row is about."""

    variant: str
    fingerprint: str


@dataclass(frozen=True)
class Row:
    """One measurement and everything needed to judge it."""

    schema_version: int
    kind: str
    model: str
    digest: str
    """SHA-256 of the ``model.onnx`` that ran; empty when it could not be read."""
    key: str
    run_id: str
    """Shared by the rows of one command."""
    created: str
    """UTC, ISO 8601."""
    machine: str
    """:attr:`bench.rows.machine.Machine.fingerprint`."""
    versions: dict[str, str]
    dataset: DatasetReference | None
    quick: bool
    """Made with ``--quick``: shown only where there is no full one."""
    measurement: Measurement

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Rows with the same one replace each other."""
        return self.kind, self.model, self.digest, self.key


@dataclass(frozen=True)
class MachineResults:
    """Everything measured on one machine."""

    name: str
    machine: Machine
    """Its newest fingerprint."""
    rows: tuple[Row, ...]
    """Oldest first."""


class Recorder:
    """Appends the rows of one run to ``results/<machine>/``.

    Args:
        results: the folder of all results.
        machine: what the run is on.
        versions: of what runs.
        quick: whether these are quick measurements.

    Raises:
        BenchError: the folder cannot be written to.
    """

    def __init__(
        self,
        results: Path,
        machine: Machine,
        versions: dict[str, str],
        *,
        quick: bool = False,
        run_id: str | None = None,
    ) -> None:
        self.folder = results / machine.name
        self.run_id = run_id or uuid.uuid4().hex[:12]
        self._machine = machine
        self._versions = versions
        self._quick = quick
        self._make_folder()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make {self.folder}: {error.strerror}"
            raise BenchError(message) from error
        path = self.folder / MACHINES_FILE
        if self._machine not in _read_machines(path):
            _append(path, asdict(self._machine))

    def add(
        self, model: str, digest: str, dataset: DatasetReference | None, measurement: Measurement
    ) -> Row:
        """Write one row, now, to disk.

        Raises:
            BenchError: it could not be written (the disk is full, say); earlier rows are intact.
        """
        row = Row(
            schema_version=SCHEMA_VERSION,
            kind=kind_of(measurement),
            model=model,
            digest=digest,
            key=key_of(measurement),
            run_id=self.run_id,
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
            machine=self._machine.fingerprint,
            versions=self._versions,
            dataset=dataset,
            quick=self._quick,
            measurement=measurement,
        )
        _append(self.folder / f"{row.kind}.jsonl", asdict(row))
        return row

    def add_failure(self, model: str, digest: str, stage: str, error: BaseException) -> Row:
        """Write the row that says why ``stage`` could not be measured."""
        reason = FailureMeasurement(stage, type(error).__name__, published(error))
        return self.add(model, digest, None, reason)


def published(error: BaseException) -> str:
    """The first line of its message, without this machine's folders: rows are published."""
    first = (str(error).splitlines() or ["no reason given"])[0]
    for folder, shown in ((PROJECT_ROOT, "."), (cache_dir(), "(cache)"), (Path.home(), "~")):
        first = first.replace(f"{folder}{os.sep}", f"{shown}{os.sep}")
    return first


def read_results(results: Path) -> list[MachineResults]:
    """All machines' rows, by machine name.

    Raises:
        BenchError: a line that is not a row; names the file and the line.
    """
    found = []
    there = results.iterdir() if results.is_dir() else ()
    folders = sorted(path for path in there if path.is_dir())
    for folder in folders:
        machines = _read_machines(folder / MACHINES_FILE)
        if machines:
            rows = [row for kind in KINDS for row in read_rows(folder / f"{kind}.jsonl")]
            rows.sort(key=lambda row: row.created)
            found.append(MachineResults(folder.name, machines[-1], tuple(rows)))
    return found


def read_rows(path: Path) -> list[Row]:
    """The rows of one file, in the order written; none when there is no such file.

    Raises:
        BenchError: a damaged line that is not a cut-off last one; names the file and the line.
    """
    return [_row(path, number, line) for number, line in _lines(path)]


def newest(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: per identity the newest full one, or the newest quick one where there
    is no full one. Oldest first."""
    best: dict[tuple[str, str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (not row.quick, row.created)):
        best.pop(row.identity, None)  # so that the dict's order is the order of writing
        best[row.identity] = row
    return sorted(best.values(), key=lambda row: row.created)


def _read_machines(path: Path) -> list[Machine]:
    return [_record(Machine, path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    """(number, text) of every whole line; a cut-off last one is reported and left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise BenchError(message) from error
    *whole, rest = text.split("\n")
    if rest:
        logger.warning(
            "%s, line %d is cut off (a run was interrupted while writing); it is passed over",
            path,
            len(whole) + 1,
        )
    return [(number, line) for number, line in enumerate(whole, start=1) if line.strip()]


def _row(path: Path, number: int, line: str) -> Row:
    value = _json(path, number, line)
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        message = (
            f"{path}, line {number}: schema version {version}, this code reads {SCHEMA_VERSION}. "
            "Measure again, or read it with the version that wrote it."
        )
        raise BenchError(message)
    kind = value.get("kind")
    if kind not in KINDS:
        message = f"{path}, line {number}: kind is {kind!r}, expected one of {', '.join(KINDS)}"
        raise BenchError(message)
    fields = value.pop("measurement", None)
    if isinstance(fields, dict):
        fields = ADDED_LATER.get(kind, {}) | fields
    measurement = _record(KINDS[kind], path, number, json.dumps(fields))
    envelope = _record(_Envelope, path, number, json.dumps(value))
    return Row(**vars(envelope), measurement=measurement)


@dataclass(frozen=True)
class _Envelope:
    """A row without its measurement, whose type depends on the kind."""

    schema_version: int
    kind: str
    model: str
    digest: str
    key: str
    run_id: str
    created: str
    machine: str
    versions: dict[str, str]
    dataset: DatasetReference | None
    quick: bool


def _json(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        message = f"{path}, line {number} is damaged ({error}). {_REMEDY}"
        raise BenchError(message) from error
    if not isinstance(value, dict):
        message = f"{path}, line {number} is not a row. {_REMEDY}"
        raise BenchError(message)
    return value


R = TypeVar("R")


def _record(kind: type[R], path: Path, number: int, text: str) -> R:
    try:
        return from_json(kind, text)
    except RecordError as error:
        message = f"{path}, line {number}: {error}. {_REMEDY}"
        raise BenchError(message) from error


_REMEDY: Final = "Restore the file from git, or delete that line and measure again."


def _append(path: Path, value: dict[str, Any]) -> None:
    """Append one line, or nothing: what a full disk let through of it is taken back."""
    line = (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    try:
        with path.open("a+b", buffering=0) as file:
            before = _end_of_last_whole_line(file)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), before)
                raise
    except OSError as error:
        message = (
            f"cannot write to {path}: {error.strerror}. The rows written before are intact; "
            "make room (or choose another place with --results) and run again."
        )
        raise BenchError(message) from error


def _end_of_last_whole_line(file: io.FileIO) -> int:
    """The file's size, after dropping what an interrupted run left of its last line."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        size = file.read(size).rfind(b"\n") + 1
        os.ftruncate(file.fileno(), size)
    return size
