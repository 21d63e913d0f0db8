"""What the report shows of one machine, and what a section of the report is."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from bench.report.formats import short_provider
from bench.report.tables import Block
from bench.rows.files import MachineResults
from bench.rows.row import Measurement, Row
from bench.rows.selection import ModelResult, newest, rows_of

M = TypeVar("M", bound=Measurement)


@dataclass(frozen=True)
class Shown:
    """One machine's rows and the models selected from them."""

    results: MachineResults
    models: tuple[ModelResult, ...]
    """As :func:`bench.rows.selection.select` orders them."""

    @cached_property
    def newest(self) -> list[Row]:
        """The rows that count."""
        return newest(self.results.rows)

    @cached_property
    def digest(self) -> str:
        """Hash of the rows that count: changes when any of them does."""
        named = [(*row.identity, row.run_id, row.created) for row in self.newest]
        return hashlib.sha256(repr(sorted(named)).encode()).hexdigest()[:16]

    def rows(self, kind: type[M]) -> list[Row[M]]:
        """The newest rows of one kind, of the files that are shown: those of an older file of the
        same model are left out."""
        return self.of_shown_files(rows_of(self.newest, kind))

    def of_shown_files(self, rows: Iterable[Row[M]]) -> list[Row[M]]:
        """The rows among these that are of a file that is shown."""
        files = {(model.model, model.digest) for model in self.models}
        return [row for row in rows if (row.model, row.digest) in files]

    def name(self, model: ModelResult) -> str:
        """The model's name; with its provider where the same model ran on several."""
        if sum(other.model == model.model for other in self.models) > 1:
            return f"{model.model}, {short_provider(model.provider)}"
        return model.model

    @property
    def machine_line(self) -> str:
        """One sentence on what the figures were measured on."""
        machine = self.results.machine
        gpus = ", ".join(machine.gpus) or "no GPU"
        return (
            f"Measured on {machine.cpu}, {machine.logical_cores} cores, {machine.memory_gib} GiB, "
            f"{gpus}."
        )

    def left_out(self, what: str) -> str:
        """One line that names the models of which a session left ``what`` out; empty for none."""
        names = [
            f"`{model.model}`"
            for model in self.models
            if model.plan is not None and what in model.plan.left_out
        ]
        if not names:
            return ""
        return f"Not measured, by the rule under *What was measured*: {', '.join(names)}."


@dataclass(frozen=True)
class Section:
    """A section of the report. A module of :mod:`bench.report.sections` names its own in
    ``SECTIONS``."""

    place: int
    """Sections are shown in this order."""
    title: str
    render: Callable[[Shown], Iterable[Block]]
    """Yields nothing where there is nothing to show."""
    may_be_left_out: str = ""
    """What a session may leave out of a model; the section then says of which."""

    def blocks(self, shown: Shown) -> list[Block]:
        """What the section holds."""
        missing = self.may_be_left_out and shown.left_out(self.may_be_left_out)
        return [block for block in (*self.render(shown), missing) if block]
