"""Contents of the report about one machine, and the sections that show them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeVar

from bench.report.charts.svg import GREY, LOOKS
from bench.report.formats import short_provider
from bench.report.tables import Block
from bench.rows.files import MachineResults
from bench.rows.row import Measurement, Row
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult, newest, rows_of
from cifar10.openvino_session import OPENVINO_PROVIDER

M = TypeVar("M", bound=Measurement)

CIFAR10: Final = "cifar10"
"""Name of the data set of every copy of CIFAR-10, and of rows without images."""

_CIFAR10_FAMILIES: Final = ("cifar10", "custom", "synthetic")
"""First words of the variants that :mod:`cifar10.dataset` names."""


@dataclass(frozen=True)
class Shown:
    """One machine's rows and the models selected from them."""

    results: MachineResults
    models: tuple[ModelResult, ...]
    """Models in the order of :func:`bench.rows.selection.select`."""
    rendered: dict[str, list[Block]] = field(default_factory=dict, repr=False, compare=False)
    """Sections that have been rendered, by their title."""

    @cached_property
    def newest(self) -> list[Row]:
        """The newest full row for each identity; see :func:`bench.rows.selection.newest`."""
        return newest(self.results.rows)

    @cached_property
    def subjects(self) -> list[ModelResult]:
        """The released models, one for each recipe, which all sections show; CIFAR-10's first.

        What was measured in OpenVINO is compared in a section of its own.
        """
        found = [one for one in one_of_each(self.models) if one.released and _is_measured(one)]
        found = [one for one in found if one.provider != OPENVINO_PROVIDER]
        return sorted(found, key=lambda one: dataset_name(one) != CIFAR10)

    @cached_property
    def in_openvino(self) -> list[ModelResult]:
        """The released models as OpenVINO runs them."""
        found = [one for one in self.models if one.released and _is_measured(one)]
        return [one for one in found if one.provider == OPENVINO_PROVIDER]

    @cached_property
    def others(self) -> list[ModelResult]:
        """Measured models whose file is not in the store, one for each recipe."""
        return [one for one in one_of_each(self.models) if not one.released and _is_measured(one)]

    @cached_property
    def refused(self) -> list[ModelResult]:
        """Variants that were made and not kept."""
        return [one for one in self.models if one.variant is not None and one.variant.refused]

    @cached_property
    def cost_only(self) -> list[ModelResult]:
        """Models with random weights, whose accuracy means nothing."""
        return [one for one in self.models if one.has_random_weights and one not in self.refused]

    @cached_property
    def failed(self) -> list[ModelResult]:
        """Models with a measurement that failed."""
        return [one for one in self.models if one.failures]

    def look(self, model: ModelResult) -> int:
        """Colour and marker of a model, the same in every chart; grey beyond the first few."""
        found = [one.model for one in self.drawn]
        return found.index(model.model) if model.model in found else GREY

    @cached_property
    def drawn(self) -> list[ModelResult]:
        """Models that charts show: at most as many as their colours and markers distinguish."""
        once = {one.model: one for one in reversed(self.subjects)}
        return list(reversed(once.values()))[:LOOKS]

    def rows(self, kind: type[M]) -> list[Row[M]]:
        """Return the newest rows of one kind, of the files that are shown."""
        return self.of_shown_files(rows_of(self.newest, kind))

    def of_shown_files(self, rows: Iterable[Row[M]]) -> list[Row[M]]:
        """Return the rows among these that are of a file that is shown."""
        files = {(model.model, model.digest) for model in self.subjects or self.models}
        return [row for row in rows if (row.model, row.digest) in files]

    def name(self, model: ModelResult) -> str:
        """Return the model's name; with its provider where the same model ran on several."""
        others = (one for one in self.models if one.provider != OPENVINO_PROVIDER)
        if sum(other.model == model.model for other in others) > 1:
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


def dataset_name(model: ModelResult) -> str:
    """Return the name of a model's data set: all copies of CIFAR-10 have one, whatever their
    variant; of a user's own images it is the variant without its fingerprint."""
    variant = model.dataset.variant if model.dataset else CIFAR10
    family = re.sub(r"-[0-9a-f]{8}$", "", variant)
    return CIFAR10 if family.partition("-")[0] in _CIFAR10_FAMILIES else family


def by_dataset(models: Sequence[ModelResult]) -> dict[str, list[ModelResult]]:
    """Group models by data set, because accuracies of different ones cannot be compared."""
    groups: dict[str, list[ModelResult]] = {}
    for model in models:
        groups.setdefault(dataset_name(model), []).append(model)
    return groups


def _is_measured(model: ModelResult) -> bool:
    refused = model.variant is not None and model.variant.refused
    known = model.accuracy is not None or bool(model.latency)
    return known and not refused and not model.has_random_weights


@dataclass(frozen=True)
class Section:
    """A section of the report. A module of :mod:`bench.report.sections` lists its own in
    ``SECTIONS``."""

    place: int
    """Sections are shown in this order; those of the same place by the names of their modules."""
    title: str
    shows: str
    """Summary of what the section shows, in a few words."""
    render: Callable[[Shown], Iterable[Block]]
    """Function that yields the section's content; nothing if there is none."""
    page_only: bool = False
    """Whether ``REPORT.md`` leaves it out."""

    def blocks(self, shown: Shown) -> list[Block]:
        """Return the content of the section."""
        if self.title not in shown.rendered:
            shown.rendered[self.title] = [block for block in self.render(shown) if block]
        return shown.rendered[self.title]
