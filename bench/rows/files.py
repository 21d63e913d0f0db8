"""Append-only row files: ``results/<machine>/<kind>.jsonl``, one JSON object a line.

A row refers to its machine's identity, which ``machines.jsonl`` in the same folder describes.
Measuring again appends a row, and readers use the newest (:func:`bench.rows.selection.newest`).
Rows are never overwritten.

A row is written with one ``write`` and a final newline. A line cut off by a crash can therefore
only be the last one: it is logged and skipped, and every row before it is valid. Damage anywhere
else is an error.
"""

import contextlib
import errno
import io
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.rows.kinds import adapter_of, kinds
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.machine import Machine
from bench.rows.row import SCHEMA_VERSION, DatasetReference, Measurement, Row
from cifar10.environment import PROJECT_ROOT, cache_dir, engine
from cifar10.errors import BenchError
from cifar10.openvino_session import OPENVINO_PROVIDER

logger = logging.getLogger(__name__)

MACHINES_FILE: Final = "machines.jsonl"
_MACHINE: Final = TypeAdapter(Machine)
_REMEDY: Final = "Restore the file from git, or delete that line and measure again."


@dataclass(frozen=True)
class MachineResults:
    """Everything measured on one machine."""

    name: str
    machine: Machine
    """Newest state of the machine."""
    rows: tuple[Row, ...]
    """Rows of the machine, oldest first."""


class Recorder:
    """Appends the rows of one run to ``results/<machine>/``.

    Args:
        quick: whether these are quick measurements.
        run_id: id shared by the rows of this run (default: a new one).

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
            _append(path, _MACHINE.dump_json(self._machine))

    def add(
        self, model: str, digest: str, dataset: DatasetReference | None, measurement: Measurement
    ) -> Row:
        """Write one row to disk immediately.

        Raises:
            BenchError: the row could not be written (full disk?); earlier rows are intact.
        """
        row = Row(
            schema_version=SCHEMA_VERSION,
            kind=measurement.kind,
            model=model,
            digest=digest,
            key=measurement.key,
            run_id=self.run_id,
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
            machine=self._machine.identity,
            versions=self._versions,
            dataset=dataset,
            quick=self._quick,
            measurement=measurement,
        )
        _append(self.folder / f"{row.kind}.jsonl", adapter_of(row.kind).dump_json(row))
        return row

    def add_failure(self, model: str, digest: str, stage: str, error: BaseException) -> Row:
        """Write a row with the reason why ``stage`` could not be measured."""
        provider = OPENVINO_PROVIDER if engine() == "openvino" else None
        reason = FailureMeasurement(stage, type(error).__name__, published(error), provider)
        return self.add(model, digest, None, reason)


def published(error: BaseException) -> str:
    """Return the first line of an error's message, without this machine's folders."""
    first = (str(error).splitlines() or ["no reason given"])[0]
    for folder, shown in ((PROJECT_ROOT, "."), (cache_dir(), "(cache)"), (Path.home(), "~")):
        first = first.replace(f"{folder}{os.sep}", f"{shown}{os.sep}")
    return first


def read_results(results: Path) -> list[MachineResults]:
    """Return all machines' rows by machine name.

    Raises:
        BenchError: a line is not a row; the message names the file and the line.
    """
    found = []
    there = results.iterdir() if results.is_dir() else ()
    for folder in sorted(path for path in there if path.is_dir()):
        machines = _read_machines(folder / MACHINES_FILE)
        if machines:
            identities = {machine.state: machine.identity for machine in machines}
            rows = [
                row for kind in kinds() for row in read_rows(folder / f"{kind}.jsonl", identities)
            ]
            rows.sort(key=lambda row: row.created)
            found.append(MachineResults(folder.name, machines[-1], tuple(rows)))
    return found


def read_rows(path: Path, identities: Mapping[str, str] | None = None) -> list[Row]:
    """Return the rows of one file in the order written; none if the file does not exist.

    Args:
        path: path of the file; its stem is the kind of its rows.
        identities: :attr:`Machine.state` → :attr:`Machine.identity`, for rows that refer to the
            former.

    Raises:
        BenchError: a line other than a cut-off last one is damaged; names the file and the line.
    """
    kind = path.stem
    if kind not in kinds():
        message = f"{path}: {kind!r} is no kind of row, expected one of {', '.join(kinds())}"
        raise BenchError(message)
    found = []
    for number, line in _lines(path):
        row = _parse(adapter_of(kind), path, number, line, identities)
        if row.schema_version != SCHEMA_VERSION:
            message = (
                f"{path}, line {number}: schema version {row.schema_version}, this code reads "
                f"{SCHEMA_VERSION}. Measure again, or read it with the version that wrote it."
            )
            raise BenchError(message)
        if row.kind != kind:
            message = f"{path}, line {number}: kind is {row.kind!r}, expected {kind!r}. {_REMEDY}"
            raise BenchError(message)
        found.append(row)
    return found


def _read_machines(path: Path) -> list[Machine]:
    return [_parse(_MACHINE, path, number, line) for number, line in _lines(path)]


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Yield (number, text) for every complete line; a cut-off last one is logged and skipped."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise BenchError(message) from error
    *whole, rest = text.split(b"\n")
    if rest:
        logger.warning(
            "%s, line %d is cut off (a run was interrupted while writing); it is skipped",
            path,
            len(whole) + 1,
        )
    return [(number, line) for number, line in enumerate(whole, start=1) if line.strip()]


R = TypeVar("R")


def _parse(adapter: TypeAdapter[R], path: Path, number: int, line: bytes, context: Any = None) -> R:
    try:
        return adapter.validate_json(line, strict=True, extra="forbid", context=context)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        got = f", got {first['input']!r}"[:80] if where and first["type"] != "missing" else ""
        reason = f"{where}: {first['msg']}{got}" if where else first["msg"]
        message = f"{path}, line {number} is damaged: {reason}. {_REMEDY}"
        raise BenchError(message) from error


def _append(path: Path, value: bytes) -> None:
    """Append one line, or nothing: a partial write on a full disk is undone."""
    line = value + b"\n"
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
    """Remove an interrupted run's incomplete last line, and return the file's size."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        size = file.read(size).rfind(b"\n") + 1
        os.ftruncate(file.fileno(), size)
    return size
